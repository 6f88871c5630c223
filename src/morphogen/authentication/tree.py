"""The tree over pages that exist, recomputed from their contents, a chunk of pages at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from morphogen.authentication.hashing import (
    HASH_BYTES,
    Bytes,
    even,
    hash_leaves,
    hash_pairs,
)
from morphogen.authentication.shape import Shape, check_layout
from morphogen.errors import IntegrityError
from morphogen.pages import PageMatrix
from morphogen.progress import Progress

_CHUNK_BYTES = 1 << 20  # of pages that are hashed together, if one is not longer


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """What a table's pages hash to.

    Attributes
    ----------
    cap : numpy.ndarray
        uint8 (nodes, 32): the tree's nodes of level ``proof_levels``, in order.
    root : bytes
        32 bytes that stand for the whole table.
    """

    cap: Bytes
    root: bytes


def tree_of_pages(
    pages: PageMatrix,
    proof_levels: SupportsIndex,
    layout: bytes = b"",
    progress: Progress | None = None,
) -> Tree:
    """Recompute a table's tree from its pages.

    Parameters
    ----------
    pages : PageMatrix
        Contents with their siblings, as `seal_pages` makes them.
    proof_levels : int
        Siblings in each page.
    layout : bytes, optional
        As `seal_pages` took it.
    progress : callable, optional
        Called with the bytes done and those in all.

    Returns
    -------
    Tree
        The cap and the root. Whether the root is the table's is for the caller to tell.

    Raises
    ------
    IntegrityError
        If a page has another sibling than the contents give.
    TypeError, ValueError
        If proof_levels or layout has the wrong type or is out of range.
    """
    shape = Shape(pages.num_pages, pages.page_size, proof_levels)
    check_layout(layout)
    tree = ChunkedTree(shape)
    for start in range(0, pages.num_pages, tree.chunk_pages):
        if progress is not None:
            progress(start * pages.page_size, pages.nbytes)
        tree.verify(_chunk(pages, start, tree.chunk_pages))
    if progress is not None:
        progress(pages.nbytes, pages.nbytes)
    cap = tree.cap()
    return Tree(cap, shape.root(cap, layout))


class ChunkedTree:
    """The lowest levels of a tree, found from one chunk of pages after the other.

    A chunk has ``chunk_pages`` pages, a power of 2, the last one fewer.

    Parameters
    ----------
    shape : Shape
        That of the table.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._height = max(0, (_CHUNK_BYTES // shape.page_size).bit_length() - 1)
        self._levels = min(shape.proof_levels, self._height)
        self._nodes: list[Bytes] = []
        self._uppers: list[Bytes] = []
        self._done = 0

    @property
    def chunk_pages(self) -> int:
        """Pages of a chunk."""
        return 1 << self._height

    def verify(self, pages: Bytes) -> None:
        """Take the next chunk, whose siblings must be those that its contents give.

        Parameters
        ----------
        pages : numpy.ndarray
            uint8 (pages, page_size).

        Raises
        ------
        IntegrityError
            If they are not, as far as this chunk tells.
        """
        size, levels = self._shape.content_size, self._levels
        level = hash_leaves(pages[:, :size], self._done)
        self._done += len(pages)
        indices = np.arange(len(pages))
        for height in range(levels):
            level = even(level)
            at = size + HASH_BYTES * height
            _require(np.array_equal(pages[:, at : at + HASH_BYTES], level[(indices >> height) ^ 1]))
            level = hash_pairs(level)
        # Where a chunk is smaller than what a cap's node covers, its pages share the siblings above
        # it, which are compared once all chunks are known.
        if self._levels < self._shape.proof_levels:
            upper = pages[:, size + HASH_BYTES * levels :]
            _require(bool((upper == upper[0]).all()))
            self._uppers.append(upper[0].copy())
        self._nodes.append(level)

    def cap(self) -> Bytes:
        """Return the cap, when all pages were taken.

        Returns
        -------
        numpy.ndarray
            uint8 (nodes, 32).

        Raises
        ------
        IntegrityError
            If a sibling above the chunks is another than the contents give.
        """
        level = np.concatenate(self._nodes)
        if self._uppers:
            uppers = np.stack(self._uppers)
            chunks = np.arange(len(uppers))
            for height in range(self._shape.proof_levels - self._levels):
                level = even(level)
                at = HASH_BYTES * height
                stored = uppers[:, at : at + HASH_BYTES]
                _require(np.array_equal(stored, level[(chunks >> height) ^ 1]))
                level = hash_pairs(level)
        return level


def _require(right: bool) -> None:
    if not right:
        raise IntegrityError("a page is not the one that the other pages vouch for")


def _chunk(pages: PageMatrix, start: int, count: int) -> Bytes:
    chunk = pages.body[start : start + count]
    if pages.tail is not None and len(chunk) < count:
        chunk = np.concatenate((chunk, pages.tail[np.newaxis]))
    return chunk
