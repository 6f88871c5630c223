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
from morphogen.pages import PageMatrix, check_array
from morphogen.progress import Progress, by_the_hundredth

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
    tell = by_the_hundredth(progress) if progress is not None else None
    for start in range(0, pages.num_pages, tree.chunk_pages):
        if tell is not None:
            tell(start * pages.page_size, pages.nbytes)
        tree.verify(chunk_of(pages, start, tree.chunk_pages))
    if tell is not None:
        tell(pages.nbytes, pages.nbytes)
    cap = tree.cap()
    return Tree(cap, shape.root(cap, layout))


def cap_of_slice(pages: PageMatrix, shape: Shape) -> Bytes:
    """Recompute the nodes of a table's cap above some of its pages.

    Parameters
    ----------
    pages : PageMatrix
        A slice of the table, contents with their siblings, that begins and ends where nodes of the
        cap do, or the table.
    shape : Shape
        That of the table.

    Returns
    -------
    numpy.ndarray
        uint8 (nodes, 32). Whether they are the table's is for the caller to tell.

    Raises
    ------
    IntegrityError
        If a page has another sibling than the contents give.
    ValueError
        If the slice has a part of a node.
    """
    node, stop = 1 << shape.proof_levels, pages.first + pages.num_pages
    if pages.first % node or (stop % node and stop != shape.num_pages):
        raise ValueError(
            f"a slice must be of whole nodes of {node} pages, not pages {pages.first} to {stop - 1}"
        )
    tree = ChunkedTree(shape, pages.first)
    for start in range(0, pages.num_pages, tree.chunk_pages):
        tree.verify(chunk_of(pages, start, tree.chunk_pages))
    return tree.cap()


def fill_siblings(
    pages: Bytes,
    proof_levels: SupportsIndex,
    layout: bytes = b"",
    progress: Progress | None = None,
) -> Tree:
    """Make pages prove themselves, in place.

    Parameters
    ----------
    pages : numpy.ndarray
        uint8 (num_pages, page_size). Their last 32 * proof_levels bytes are written.
    proof_levels : int
        Siblings in each page, 0 to ceil(log2(num_pages)).
    layout : bytes, optional
        As `seal_pages` takes it.
    progress : callable, optional
        Called with the bytes done and those in all.

    Returns
    -------
    Tree
        The cap and the root.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or is out of range.
    """
    check_array("pages", pages)
    if pages.ndim != 2:
        raise ValueError(f"pages must have 2 dimensions, not {pages.ndim}")
    shape = Shape(len(pages), pages.shape[1], proof_levels)
    check_layout(layout)
    tree = ChunkedTree(shape)
    tell = by_the_hundredth(progress) if progress is not None else None
    for start in range(0, len(pages), tree.chunk_pages):
        if tell is not None:
            tell(start * shape.page_size, pages.size)
        tree.fill(pages[start : start + tree.chunk_pages])
    if tree.has_uppers:
        for number, upper in enumerate(tree.upper_siblings()):
            start = number * tree.chunk_pages
            pages[start : start + tree.chunk_pages, -upper.size :] = upper
    if tell is not None:
        tell(pages.size, pages.size)
    cap = tree.cap()
    return Tree(cap, shape.root(cap, layout))


class ChunkedTree:
    """A tree that is found from one chunk of pages after the other.

    A chunk has ``chunk_pages`` pages, a power of 2, the last one fewer. Where that is less than a
    node of the cap covers, the pages of a chunk share the siblings above it, the *upper* ones.

    Parameters
    ----------
    shape : Shape
        That of the table.
    first : int, optional
        The first page, if not all pages are taken: a multiple of the pages of a chunk's node, and
        of a node of the cap.
    """

    def __init__(self, shape: Shape, first: int = 0) -> None:
        self._shape = shape
        self._height = max(0, (_CHUNK_BYTES // shape.page_size).bit_length() - 1)
        self._levels = min(shape.proof_levels, self._height)
        self._above = HASH_BYTES * self._levels + shape.content_size  # where upper siblings begin
        self._nodes: list[Bytes] = []
        self._uppers: list[Bytes] = []
        self._done = first

    @property
    def chunk_pages(self) -> int:
        """Pages of a chunk."""
        return 1 << self._height

    @property
    def has_uppers(self) -> bool:
        """Whether siblings above the chunks are in the pages."""
        return self._levels < self._shape.proof_levels

    def add(self, contents: Bytes) -> list[Bytes]:
        """Take the next chunk, of which only the contents are there.

        Parameters
        ----------
        contents : numpy.ndarray
            uint8 (pages, content_size).

        Returns
        -------
        list of numpy.ndarray
            Of each level below the chunk's own nodes, the siblings of the pages: uint8 (pages, 32).
        """
        level = hash_leaves(contents, self._done)
        self._done += len(contents)
        indices = np.arange(len(contents))
        siblings = []
        for height in range(self._levels):
            level = even(level)
            siblings.append(level[(indices >> height) ^ 1])
            level = hash_pairs(level)
        self._nodes.append(level)
        return siblings

    def fill(self, pages: Bytes, upper: Bytes | None = None) -> None:
        """Take the next chunk, and write siblings behind its contents.

        Parameters
        ----------
        pages : numpy.ndarray
            uint8 (pages, page_size).
        upper : numpy.ndarray, optional
            The chunk's row of `upper_siblings`, where it is known.
        """
        size = self._shape.content_size
        for height, siblings in enumerate(self.add(pages[:, :size])):
            at = size + HASH_BYTES * height
            pages[:, at : at + HASH_BYTES] = siblings
        if upper is not None:
            pages[:, self._above :] = upper

    def verify(self, pages: Bytes) -> None:
        """Take the next chunk, whose siblings must be those that its contents give.

        Parameters
        ----------
        pages : numpy.ndarray
            uint8 (pages, page_size).

        Raises
        ------
        IntegrityError
            If they are not, as far as this chunk tells. `cap` tells the rest.
        """
        size = self._shape.content_size
        for height, siblings in enumerate(self.add(pages[:, :size])):
            at = size + HASH_BYTES * height
            _require(np.array_equal(pages[:, at : at + HASH_BYTES], siblings))
        if self.has_uppers:
            upper = pages[:, self._above :]
            _require(bool((upper == upper[0]).all()))
            self._uppers.append(upper[0].copy())

    def upper_siblings(self) -> Bytes:
        """Return the siblings above the chunks, when all were taken.

        Returns
        -------
        numpy.ndarray
            uint8 (chunks, 32 * levels): what the pages of each chunk end with.
        """
        return self._climb()[1]

    def cap(self) -> Bytes:
        """Return the cap, when all chunks were taken.

        Returns
        -------
        numpy.ndarray
            uint8 (nodes, 32).

        Raises
        ------
        IntegrityError
            If a page that was verified has another upper sibling than the contents give.
        """
        cap, uppers = self._climb()
        _require(not self._uppers or np.array_equal(np.stack(self._uppers), uppers))
        return cap

    def _climb(self) -> tuple[Bytes, Bytes]:
        level = np.concatenate(self._nodes)
        levels = self._shape.proof_levels - self._levels
        uppers = np.empty((len(level) if levels else 0, levels, HASH_BYTES), dtype=np.uint8)
        chunks = np.arange(len(uppers))
        for height in range(levels):
            level = even(level)
            uppers[:, height] = level[(chunks >> height) ^ 1]
            level = hash_pairs(level)
        return level, uppers.reshape(len(uppers), levels * HASH_BYTES)


def _require(right: bool) -> None:
    if not right:
        raise IntegrityError("a page is not the one that the other pages vouch for")


def chunk_of(pages: PageMatrix, start: int, count: int) -> Bytes:
    """Return so many pages of a matrix, fewer at its end: uint8 (pages, page_size)."""
    chunk = pages.body[start : start + count]
    if pages.tail is not None and len(chunk) < count:
        chunk = np.concatenate((chunk, pages.tail[np.newaxis]))
    return chunk
