"""Pages that prove themselves: a Merkle tree over a table, the lowest part of it in the pages.

A page is its content, then the siblings of the lowest ``proof_levels`` levels of its path to the
top, 32 bytes each, the lowest first. The nodes of the level above those are the *cap*, which a
client takes once for each version of a table, and the *root* is a hash of the top node and of the
table's shape. A prefix tells the hashes of leaves, nodes and roots apart, and that of a leaf holds
the page's index: so for one root there is one page that is right at an index.

R. Merkle, "A certified digital signature", CRYPTO 1989. Section 13 of docs/protocol.md defines
every byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_indices, as_int, check_range
from morphogen.dpf import MAX_PAGES
from morphogen.pages import MAX_PAGE_SIZE, check_array

Bytes = npt.NDArray[np.uint8]

HASH_BYTES = 32
LEAST_PROOF_LEVELS = 4  # of a table that has so many
MOST_CAP_BYTES = 16 << 20
_LEAF = struct.Struct("<16sQQ")  # name, index, bytes of content
_ROOT = struct.Struct("<16sQQQ32s32s")  # name, pages, page size, proof levels, layout's hash, top
_NODE_HEAD = b"morphogen/node/1" + bytes(16)


@dataclass(frozen=True, slots=True, eq=False)
class Seal:
    """A table whose pages prove themselves.

    Attributes
    ----------
    pages : numpy.ndarray
        uint8 (num_pages, page_size): contents with their siblings.
    cap : numpy.ndarray
        uint8 (nodes, 32): the tree's nodes of level ``proof_levels``, in order.
    root : bytes
        32 bytes that stand for the whole table.
    """

    pages: Bytes
    cap: Bytes
    root: bytes


def seal_pages(
    contents: Bytes, page_size: SupportsIndex, proof_levels: SupportsIndex, layout: bytes = b""
) -> Seal:
    """Make a table of pages that prove themselves.

    Parameters
    ----------
    contents : numpy.ndarray
        uint8 (num_pages, page_size - 32 * proof_levels).
    page_size : int
        Bytes of a page.
    proof_levels : int
        Siblings in each page, 0 to ceil(log2(num_pages)); `default_proof_levels` gives a good one.
    layout : bytes, optional
        How a client reads the pages, which the root vouches for too.

    Returns
    -------
    Seal
        The pages, their cap and root.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument is out of range, or the contents have another shape.
    """
    check_array("contents", contents)
    if contents.ndim != 2:
        raise ValueError(f"contents must have 2 dimensions, not {contents.ndim}")
    num_pages = len(contents)
    shape = _Shape(num_pages, page_size, proof_levels)
    check_array("contents", contents, (num_pages, shape.content_size))

    pages = np.empty((num_pages, shape.page_size), dtype=np.uint8)
    pages[:, : shape.content_size] = contents
    level = _hash_leaves(pages[:, : shape.content_size])
    indices = np.arange(num_pages)
    for height in range(shape.proof_levels):
        padded = _even(level)
        start = shape.content_size + HASH_BYTES * height
        pages[:, start : start + HASH_BYTES] = padded[(indices >> height) ^ 1]
        level = _hash_pairs(padded)
    return Seal(pages, level, shape.root(level, layout))


def check_pages(
    pages: Bytes, indices: Iterable[SupportsIndex], cap: Bytes, proof_levels: SupportsIndex
) -> bool:
    """Tell whether all pages are the table's own at the indices that were asked for.

    Every page is hashed, whatever the others are: to stop at the first that is wrong would tell by
    time which it was.

    Parameters
    ----------
    pages : numpy.ndarray
        uint8 (count, page_size): what `morphogen.reconstruct` made of two answers.
    indices : iterable of int
        The index that each was asked for, never one that an answer states.
    cap : numpy.ndarray
        uint8 (nodes, 32), whose root is the table's: see `root_of_cap`.
    proof_levels : int
        Siblings in each page.

    Returns
    -------
    bool
        True for no pages, too.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is not an index for each page, one lies outside the table, or a page is too short
        for its siblings.
    """
    check_array("pages", pages)
    check_array("cap", cap)
    if pages.ndim != 2:
        raise ValueError(f"pages must have 2 dimensions, not {pages.ndim}")
    if cap.ndim != 2 or cap.shape[1] != HASH_BYTES or len(cap) == 0:
        raise ValueError(f"cap must have shape (1 or more, {HASH_BYTES}), not {cap.shape}")
    levels = as_int("proof_levels", proof_levels)
    check_range("proof_levels", levels, 0, _height(MAX_PAGES))
    content_size = pages.shape[1] - HASH_BYTES * levels
    if content_size < 1:
        raise ValueError(
            f"a page with {levels} proof levels has more than {HASH_BYTES * levels} bytes, "
            f"not {pages.shape[1]}"
        )
    asked = as_indices("indices", indices)
    if len(asked) != len(pages):
        raise ValueError(f"indices must be {len(pages)}, one for each page, not {len(asked)}")
    for index in asked:
        check_range("an index", index, 0, (len(cap) << levels) - 1)

    right = True
    for page, index in zip(pages, asked, strict=True):
        data = page.tobytes()
        node = _leaf(index, data[:content_size])
        for height in range(levels):
            start = content_size + HASH_BYTES * height
            pair = (node, data[start : start + HASH_BYTES])
            left, other = pair[::-1] if index >> height & 1 else pair
            node = sha256(_NODE_HEAD + left + other).digest()
        right &= node == cap[index >> levels].tobytes()
    return right


def root_of_cap(
    cap: Bytes,
    num_pages: SupportsIndex,
    page_size: SupportsIndex,
    proof_levels: SupportsIndex,
    layout: bytes = b"",
) -> bytes:
    """Compute the root of a table from its cap and its shape.

    Parameters
    ----------
    cap : numpy.ndarray
        uint8 (ceil(num_pages / 2**proof_levels), 32).
    num_pages, page_size, proof_levels : int
        The table's shape.
    layout : bytes, optional
        As `seal_pages` took it.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument is out of range, or the cap has another shape.
    """
    shape = _Shape(num_pages, page_size, proof_levels)
    check_array("cap", cap, (shape.cap_nodes, HASH_BYTES))
    return shape.root(cap, layout)


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
    levels = min(LEAST_PROOF_LEVELS, _height(count))
    while _nodes(count, levels) * HASH_BYTES > MOST_CAP_BYTES:
        levels += 1
    return levels


class _Shape:
    """The numbers of a table that its root vouches for, checked."""

    def __init__(
        self, num_pages: SupportsIndex, page_size: SupportsIndex, proof_levels: SupportsIndex
    ) -> None:
        self.num_pages = _page_count(num_pages)
        self.proof_levels = as_int("proof_levels", proof_levels)
        check_range("proof_levels", self.proof_levels, 0, _height(self.num_pages))
        self.page_size = as_int("page_size", page_size)
        siblings = HASH_BYTES * self.proof_levels
        check_range("page_size", self.page_size, siblings + 1, MAX_PAGE_SIZE)
        self.content_size = self.page_size - siblings
        self.cap_nodes = _nodes(self.num_pages, self.proof_levels)

    def root(self, cap: Bytes, layout: bytes) -> bytes:
        if not isinstance(layout, bytes):
            raise TypeError(f"layout must be bytes, not {type(layout).__name__}")
        level = cap
        for _ in range(self.proof_levels, _height(self.num_pages)):
            level = _hash_pairs(_even(level))
        return sha256(
            _ROOT.pack(
                b"morphogen/root/1",
                self.num_pages,
                self.page_size,
                self.proof_levels,
                sha256(layout).digest(),
                level.tobytes(),
            )
        ).digest()


def _page_count(num_pages: SupportsIndex) -> int:
    count = as_int("num_pages", num_pages)
    check_range("num_pages", count, 1, MAX_PAGES)
    return count


def _height(num_pages: int) -> int:
    """Return the level of the top node: ceil(log2(num_pages))."""
    return (num_pages - 1).bit_length()


def _nodes(num_pages: int, level: int) -> int:
    """Return the number of a level's nodes that cover a page."""
    return -(-num_pages >> level)


def _leaf(index: int, content: bytes) -> bytes:
    return sha256(_LEAF.pack(b"morphogen/leaf/1", index, len(content)) + content).digest()


def _hash_leaves(contents: Bytes) -> Bytes:
    hashes = np.empty((len(contents), HASH_BYTES), dtype=np.uint8)
    flat = hashes.reshape(-1).data
    for index, content in enumerate(contents):
        start = HASH_BYTES * index
        flat[start : start + HASH_BYTES] = _leaf(index, content.tobytes())
    return hashes


def _even(level: Bytes) -> Bytes:
    """Return a level with an even number of nodes: one that covers no page is zero."""
    return level if len(level) % 2 == 0 else np.pad(level, ((0, 1), (0, 0)))


def _hash_pairs(level: Bytes) -> Bytes:
    hashes = np.empty((len(level) // 2, HASH_BYTES), dtype=np.uint8)
    flat, pairs = hashes.reshape(-1).data, level.tobytes()
    for index in range(len(hashes)):
        start = HASH_BYTES * index
        pair = pairs[2 * start : 2 * (start + HASH_BYTES)]
        flat[start : start + HASH_BYTES] = sha256(_NODE_HEAD + pair).digest()
    return hashes
