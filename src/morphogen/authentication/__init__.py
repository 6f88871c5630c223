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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from morphogen.authentication.hashing import HASH_BYTES, Bytes, lead_to_cap
from morphogen.authentication.shape import (
    Shape,
    check_layout,
    default_proof_levels as default_proof_levels,
    num_cap_nodes as num_cap_nodes,
    tree_height,
)
from morphogen.authentication.tree import (
    Tree as Tree,
    fill_siblings as fill_siblings,
    tree_of_pages as tree_of_pages,
)
from morphogen.checks import as_indices, as_int, check_range
from morphogen.dpf import MAX_PAGES
from morphogen.pages import check_array


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
    shape = Shape(num_pages, page_size, proof_levels)
    check_array("contents", contents, (num_pages, shape.content_size))
    check_layout(layout)

    pages = np.empty((num_pages, shape.page_size), dtype=np.uint8)
    pages[:, : shape.content_size] = contents
    tree = fill_siblings(pages, shape.proof_levels, layout)
    return Seal(pages, tree.cap, tree.root)


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
    check_range("proof_levels", levels, 0, tree_height(MAX_PAGES))
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

    return lead_to_cap(
        pages.reshape(-1).data, pages.shape[1], asked, cap.reshape(-1).data, content_size
    )


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
    shape = Shape(num_pages, page_size, proof_levels)
    check_array("cap", cap, (shape.cap_nodes, HASH_BYTES))
    check_layout(layout)
    return shape.root(cap, layout)
