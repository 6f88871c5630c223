"""What changes of authenticated pages with some of their contents: pages, cap and root.

A page's siblings cover the pages of its *group*, the 2**proof_levels pages below its node of the
cap. So a change of one content changes the pages of its group, one node of the cap, and the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.authentication.hashing import HASH_BYTES, Bytes, climb, even, hash_leaves, hash_pairs
from morphogen.authentication.shape import Shape, check_layout
from morphogen.authentication.tree import chunk_of
from morphogen.pages import PageMatrix, check_array, check_changes

_PART_BYTES = 1 << 20  # of pages that are hashed together, if a group is not longer


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """What changes of a table with some of its contents.

    Attributes
    ----------
    indices : numpy.ndarray
        int64 (pages,): the pages that are others, ascending.
    pages : numpy.ndarray
        uint8 (pages, page_size): those pages, contents with their siblings.
    cap : numpy.ndarray
        uint8 (nodes, 32): the whole new cap.
    root : bytes
        32 bytes that stand for the whole new table.
    """

    indices: npt.NDArray[np.int64]
    pages: Bytes
    cap: Bytes
    root: bytes


def change_pages(
    pages: PageMatrix,
    cap: Bytes,
    proof_levels: SupportsIndex,
    layout: bytes,
    indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
    contents: Bytes,
) -> Changed:
    """Change some contents of a table: the pages, byte for byte, that sealing anew would change.

    Parameters
    ----------
    pages : PageMatrix
        The table before. Only the groups of pages that change are read.
    cap : numpy.ndarray
        uint8 (nodes, 32): the cap before.
    proof_levels : int
        Siblings in each page.
    layout : bytes
        As `seal_pages` takes it, of the new table.
    indices : iterable of int
        The pages whose contents change, ascending, each once.
    contents : numpy.ndarray
        uint8 (indices, page_size - 32 * proof_levels): their new contents.

    Returns
    -------
    Changed
        The pages that differ from those before, those beside them for their siblings among them.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, is out of range, or has another shape.

    Notes
    -----
    Nothing tells whether the table before was right: whoever knows the new root compares it.
    """
    shape = Shape(pages.num_pages, pages.page_size, proof_levels)
    check_array("cap", cap, (shape.cap_nodes, HASH_BYTES))
    check_layout(layout)
    changed = check_changes(indices, contents, shape.num_pages, shape.content_size, name="contents")

    groups = np.unique(changed >> shape.proof_levels)
    new_cap = cap.copy()
    found = np.empty(len(groups) << shape.proof_levels, dtype=np.int64)
    new = np.empty((len(found), shape.page_size), dtype=np.uint8)
    differs = np.empty(len(found), dtype=bool)
    used = 0
    for some in _parts(groups, shape):
        numbers = _pages_of(some, shape)
        before = _rows(pages, numbers)
        rows = slice(used, used + len(numbers))
        used = rows.stop
        after = new[rows]
        after[:, : shape.content_size] = before[:, : shape.content_size]
        first, last = np.searchsorted(changed, (numbers[0], numbers[-1] + 1))
        at = np.searchsorted(numbers, changed[first:last])
        after[at, : shape.content_size] = contents[first:last]
        new_cap[some] = _fill_groups(after, numbers, shape)
        found[rows] = numbers
        differs[rows] = (after != before).any(axis=1)
    found, new, differs = found[:used], new[:used], differs[:used]
    if not differs.all():
        found, new = found[differs], new[differs]
    return Changed(found, new, new_cap, shape.root(new_cap, layout))


def cap_of_groups(
    pages: PageMatrix, groups: npt.NDArray[np.int64], shape: Shape
) -> Iterator[tuple[npt.NDArray[np.int64], Bytes]]:
    """Find nodes of a table's cap from the contents below, and hold only some of these.

    Parameters
    ----------
    pages : PageMatrix
        Contents with any siblings.
    groups : numpy.ndarray
        int64 (groups,): the nodes that are asked for, ascending.
    shape : Shape
        That of the table.

    Yields
    ------
    some : numpy.ndarray
        Some of the groups, one after the other.
    nodes : numpy.ndarray
        uint8 (groups of them, 32).
    """
    height = min(shape.proof_levels, max(0, (_PART_BYTES // shape.page_size).bit_length() - 1))
    for some in _parts(groups, shape):
        numbers = _pages_of(some, shape)
        step = len(some) << height
        level = [
            climb(_leaves(_rows(pages, part)[:, : shape.content_size], part), height)
            for part in (numbers[at : at + step] for at in range(0, len(numbers), step))
        ]
        yield some, climb(np.concatenate(level), shape.proof_levels - height)


def _parts(groups: npt.NDArray[np.int64], shape: Shape) -> Iterator[npt.NDArray[np.int64]]:
    """Some of the groups at a time."""
    most = max(1, _PART_BYTES // (shape.page_size << shape.proof_levels))
    for start in range(0, len(groups), most):
        yield groups[start : start + most]


def _pages_of(groups: npt.NDArray[np.int64], shape: Shape) -> npt.NDArray[np.int64]:
    """The pages of groups, ascending. Only the table's last group may have fewer than others."""
    within = np.arange(1 << shape.proof_levels)
    numbers = ((groups[:, np.newaxis] << shape.proof_levels) + within).reshape(-1)
    return numbers[: np.searchsorted(numbers, shape.num_pages)]


def _rows(pages: PageMatrix, numbers: npt.NDArray[np.int64]) -> Bytes:
    """Pages that lie anywhere, together."""
    if numbers[-1] - numbers[0] < len(numbers):
        return chunk_of(pages, int(numbers[0]), len(numbers))
    if pages.tail is not None and numbers[-1] == len(pages.body):
        return np.concatenate((pages.body[numbers[:-1]], pages.tail[np.newaxis]))
    rows: Bytes = pages.body[numbers]
    return rows


def _leaves(contents: Bytes, numbers: npt.NDArray[np.int64]) -> Bytes:
    """The leaves of pages that lie anywhere."""
    ends = [*(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
    starts = [0, *ends[:-1]]
    runs = zip(starts, ends, numbers[starts].tolist(), strict=True)
    return np.concatenate([hash_leaves(contents[start:end], first) for start, end, first in runs])


def _fill_groups(pages: Bytes, numbers: npt.NDArray[np.int64], shape: Shape) -> Bytes:
    """Write siblings behind the contents of whole groups, and return their nodes of the cap."""
    level = _leaves(pages[:, : shape.content_size], numbers)
    rows = np.arange(len(pages))
    for height in range(shape.proof_levels):
        level = even(level)
        at = shape.content_size + HASH_BYTES * height
        pages[:, at : at + HASH_BYTES] = level[(rows >> height) ^ 1]
        level = hash_pairs(level)
    return level
