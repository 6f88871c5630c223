"""The shape of a table of authenticated pages: what its root vouches for beside the pages."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import SupportsIndex

from morphogen.authentication.hashing import HASH_BYTES, Bytes, climb
from morphogen.checks import as_int, check_range
from morphogen.dpf import MAX_PAGES
from morphogen.pages import MAX_PAGE_SIZE

LEAST_PROOF_LEVELS = 4  # of a table that has so many
MOST_CAP_BYTES = 16 << 20
# A page gives an eighth of itself to siblings that nobody asked for, so that a small one keeps its
# room.
LEAST_PAGE_OF_LEVEL = 256
_ROOT = struct.Struct("<16sQQQ32s32s")  # name, pages, page size, proof levels, layout's hash, top


class Shape:
    """The numbers of a table that its root vouches for, checked.

    Parameters
    ----------
    num_pages, page_size, proof_levels : int
        As for `seal_pages`.

    Raises
    ------
    TypeError, ValueError
        If one is no int, or out of range.
    """

    num_pages: int
    page_size: int
    proof_levels: int
    content_size: int
    cap_nodes: int

    def __init__(
        self, num_pages: SupportsIndex, page_size: SupportsIndex, proof_levels: SupportsIndex
    ) -> None:
        self.num_pages = _page_count(num_pages)
        self.proof_levels = as_int("proof_levels", proof_levels)
        check_range("proof_levels", self.proof_levels, 0, tree_height(self.num_pages))
        self.page_size = as_int("page_size", page_size)
        siblings = HASH_BYTES * self.proof_levels
        check_range("page_size", self.page_size, siblings + 1, MAX_PAGE_SIZE)
        self.content_size = self.page_size - siblings
        self.cap_nodes = nodes_of_level(self.num_pages, self.proof_levels)

    def root(self, cap: Bytes, layout: bytes) -> bytes:
        """Compute the root from the nodes of level ``proof_levels``."""
        top = climb(cap, tree_height(self.num_pages) - self.proof_levels)
        return sha256(
            _ROOT.pack(
                b"morphogen/root/1",
                self.num_pages,
                self.page_size,
                self.proof_levels,
                sha256(layout).digest(),
                top.tobytes(),
            )
        ).digest()


def check_layout(layout: object) -> None:
    """Refuse a layout that is not bytes."""
    if not isinstance(layout, bytes):
        raise TypeError(f"layout must be bytes, not {type(layout).__name__}")


def tree_height(num_pages: int) -> int:
    """Return the level of the top node: ceil(log2(num_pages))."""
    return (num_pages - 1).bit_length()


def nodes_of_level(num_pages: int, level: int) -> int:
    """Return the number of a level's nodes that cover a page."""
    return -(-num_pages >> level)


def num_cap_nodes(num_pages: SupportsIndex, proof_levels: SupportsIndex) -> int:
    """Count the nodes of a table's cap.

    Parameters
    ----------
    num_pages : int
        1 to 2**40.
    proof_levels : int
        0 to ceil(log2(num_pages)).

    Returns
    -------
    int
        ceil(num_pages / 2**proof_levels); each takes 32 bytes.

    Raises
    ------
    TypeError, ValueError
        If one is no int, or out of range.
    """
    count, levels = _page_count(num_pages), as_int("proof_levels", proof_levels)
    check_range("proof_levels", levels, 0, tree_height(count))
    return nodes_of_level(count, levels)


def default_proof_levels(num_pages: SupportsIndex) -> int:
    """The proof levels of a table for which none are asked for.

    They are the least from 4 on for which the cap takes 16 MiB or less; fewer than 4 if the tree
    has no more.

    Parameters
    ----------
    num_pages : int
        1 to 2**40.

    Returns
    -------
    int
        0 to ceil(log2(num_pages)).

    Raises
    ------
    TypeError, ValueError
        If num_pages is no int, or out of range.
    """
    count = _page_count(num_pages)
    levels = min(LEAST_PROOF_LEVELS, tree_height(count))
    while nodes_of_level(count, levels) * HASH_BYTES > MOST_CAP_BYTES:
        levels += 1
    return levels


def _page_count(num_pages: SupportsIndex) -> int:
    count = as_int("num_pages", num_pages)
    check_range("num_pages", count, 1, MAX_PAGES)
    return count
