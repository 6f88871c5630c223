"""The next version of a keyword table: new rows in the pages that it has, of which few change.

An entry whose key stays keeps its slot; what is new takes free slots, and moves others only where
it must. What cannot be so placed takes a table that is built anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from morphogen.authentication.shape import Shape, tree_height
from morphogen.errors import TableBuildError
from morphogen.keyword.entries import Entries
from morphogen.keyword.file import OpenedTable, TableHeader
from morphogen.keyword.filling import fill_pages
from morphogen.keyword.hashing import hash_entries
from morphogen.keyword.layout import CANDIDATES, MAX_VALUE_SIZE, Bytes, TableLayout
from morphogen.keyword.matching import MAX_MATCHED, match_entries
from morphogen.keyword.moving import place_more
from morphogen.keyword.placement import Duplicates, Kept, Owners, place_rows
from morphogen.keyword.rows import Rows
from morphogen.keyword.sizes import Sizes, Wishes, choose
from morphogen.keyword.stream import write_pages
from morphogen.progress import StagedProgress, by_the_hundredth, stage

_CHUNK_BYTES = 1 << 22  # of contents that are compared together


_SAME_CHECK = "two keys have the same check under the table's seed"


class _NotInPlaceError(Exception):
    """A table cannot become the next one in place."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TableUpdate:
    """What makes a keyword table the next one.

    Entries are counted, of which a value has one for each of its fragments.

    Parameters
    ----------
    layout : TableLayout
        Of the next table: the old one with another number of entries.
    indices : numpy.ndarray
        int64, ascending: the pages whose content is another.
    contents : numpy.ndarray
        uint8 (pages, content_size): what these pages hold, without siblings.
    inserted, changed, deleted : int
        Entries that are new, that hold another value, and that are no more.
    moved : int
        Moves of others to another of their pages.
    """

    layout: TableLayout
    indices: npt.NDArray[np.int64]
    contents: Bytes
    inserted: int
    changed: int
    deleted: int
    moved: int


@dataclass(frozen=True, slots=True)
class NoUpdate:
    """Why a table has to be built anew, and cannot be updated.

    Parameters
    ----------
    reason : str
        Without any key or value.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class RebuiltTable:
    """A table that was built anew in the shape of another.

    Parameters
    ----------
    header : TableHeader
        Of the file that was written.
    tries : int
        Seeds that it took.
    """

    header: TableHeader
    tries: int


def update_table(
    old: OpenedTable,
    rows: Rows,
    duplicates: Duplicates = "error",
    progress: StagedProgress | None = None,
) -> TableUpdate | NoUpdate:
    """Find the pages that change where a table is to hold other rows.

    Parameters
    ----------
    old : OpenedTable
        A keyword table of version 2. A table has no keys, so that only rows tell which entry is
        whose.
    rows : Rows
        All rows of the next table: a key that is not among them is deleted.
    duplicates : {"error", "first", "last"}, optional
        As `TableBuilder` takes it.
    progress : callable, optional
        Called with the work done, the work in all, and the name of the stage: "matching",
        "placing", "filling".

    Returns
    -------
    TableUpdate or NoUpdate
        The same table and rows give the same pages. NoUpdate if a value does not fit, the table
        is too full, or two keys have the same check.

    Raises
    ------
    TableBuildError
        If there are no rows, or a key is there twice.
    ValueError
        If the table has no keys, or is of version 1.
    MemoryError
        If there is no memory for the search.
    """
    layout = _layout_of(old)
    told = progress if progress is not None else _silent
    with rows:
        try:
            kept = _kept_rows(rows, layout, duplicates, told)
            return _update(old, layout, _entries_of(rows, kept, layout), told)
        except _NotInPlaceError as reason:
            return NoUpdate(str(reason))


def write_update(
    path: str | os.PathLike[str],
    old: OpenedTable,
    update: TableUpdate,
    progress: StagedProgress | None = None,
) -> TableHeader:
    """Write the table that an update makes of another, whole or not at all.

    Parameters
    ----------
    path : path-like
        As for `TableBuilder.write`.
    old : OpenedTable
        The table of which the update was made.
    update : TableUpdate
        From `update_table`.
    progress : callable, optional
        Called with the bytes written, those in all, and "writing".

    Returns
    -------
    TableHeader
        The header that was written.

    Raises
    ------
    OSError
        If the file cannot be written. The file that was there before is still there.
    ValueError
        If path is something other than a file.
    """
    told = progress if progress is not None else _silent
    layout, size = update.layout, update.layout.content_size

    def fill(pages: Bytes, start: int) -> None:
        stop = start + len(pages)
        pages[:, :size] = old.pages.body[start:stop, :size]
        first, last = np.searchsorted(update.indices, (start, stop))
        pages[update.indices[first:last] - start, :size] = update.contents[first:last]

    shape = Shape(layout.num_pages, layout.page_size, layout.proof_levels)
    return write_pages(path, shape, layout, fill, by_the_hundredth(stage(told, "writing")))


def rebuild_table(
    path: str | os.PathLike[str],
    old: OpenedTable,
    rows: Rows,
    duplicates: Duplicates = "error",
    progress: StagedProgress | None = None,
    *,
    seed: bytes | None = None,
) -> RebuiltTable:
    """Build a table anew, as near to another as the rows allow.

    It has the old one's page size. Unless a value is too large, it has its value size, and lookups
    ask for as many pages.

    Parameters
    ----------
    path : path-like
        As for `TableBuilder.write`.
    old : OpenedTable
        A keyword table of version 2.
    rows : Rows
        All rows of the table.
    duplicates : {"error", "first", "last"}, optional
        As `TableBuilder` takes it.
    progress : callable, optional
        As for `TableBuilder.write`.
    seed : bytes, optional
        As `TableBuilder` takes it: by default a random one.

    Returns
    -------
    RebuiltTable
        The header that was written, and how many seeds it took.

    Raises
    ------
    TableBuildError, OSError, ValueError, MemoryError
        As from `TableBuilder.write`.
    """
    layout = _layout_of(old)
    told = progress if progress is not None else _silent
    with rows:
        wishes = _wishes_like(layout, rows)
        placed = place_rows(rows, wishes, seed, duplicates, told)
        after = replace(placed.layout, fragments=_fragments_like(layout, placed.layout))
        shape = Shape(after.num_pages, after.page_size, after.proof_levels)
        header = write_pages(path, shape, after, placed.fill, stage(told, "writing"))
    return RebuiltTable(header, placed.tries)


def _layout_of(old: OpenedTable) -> TableLayout:
    if old.layout is None:
        raise ValueError("the table has no keys: only a keyword table can be updated")
    if old.layout.version == 1:
        raise ValueError("the table must be of version 2 to be updated, not 1: build it anew")
    return old.layout


def _kept_rows(
    rows: Rows, layout: TableLayout, duplicates: Duplicates, progress: StagedProgress
) -> Kept:
    """The rows that count, where a key may come again; None for all."""
    if not rows.count:
        raise TableBuildError("a keyword table needs at least one entry, not 0")
    if duplicates == "error":
        return None
    dropped = np.zeros(rows.count, dtype=np.uint8)
    firsts = Entries(rows, None, MAX_VALUE_SIZE, rows.count)  # of each row one fragment
    firsts.set_seed(layout.seed)
    candidates = np.empty((rows.count, CANDIDATES), dtype=np.uint32)
    last = duplicates == "last"
    hashing = stage(progress, "hashing")
    if not hash_entries(firsts, 1, candidates, dropped, last=last, progress=hashing):
        raise _NotInPlaceError(_SAME_CHECK)
    return np.flatnonzero(dropped == 0).astype(np.uint32) if dropped.any() else None


def _entries_of(rows: Rows, kept: Kept, layout: TableLayout) -> Entries:
    """The entries of rows that a table may have room for."""
    sizes = Sizes.of_rows(rows, kept)
    most = layout.max_value_size
    if sizes.largest > most:
        raise _NotInPlaceError(
            f"a value has {sizes.largest} bytes, and the table has room for {most}"
        )
    count = int(sizes.entries(np.array([layout.value_size]))[0])
    slots = layout.num_pages * layout.slots_per_page
    if count > slots:
        raise _NotInPlaceError(f"there are {count} entries, and the table has {slots} slots")
    if count + slots > MAX_MATCHED:
        raise _NotInPlaceError(f"entries and slots are more than {MAX_MATCHED} together")
    entries = Entries(rows, kept, layout.value_size, count)
    entries.set_seed(layout.seed)
    return entries


def _update(
    old: OpenedTable, layout: TableLayout, entries: Entries, progress: StagedProgress
) -> TableUpdate:
    pages, slots = old.pages.body, layout.slots_per_page
    owners = np.empty(layout.num_pages * slots, dtype=np.uint32)
    touched = np.zeros(layout.num_pages, dtype=np.uint8)
    matching = stage(progress, "matching")
    matched = match_entries(entries, pages, slots, owners, touched, progress=matching)
    if matched is None:
        raise _NotInPlaceError(_SAME_CHECK)
    added, changed, deleted = matched
    moved = place_more(entries, added, slots, owners, touched, stage(progress, "placing"))
    if moved is None:
        raise _NotInPlaceError(
            f"no place was found for an entry: of {len(owners)} slots {entries.count} would be in "
            "use"
        )
    indices = np.flatnonzero(touched)
    contents = _fill(entries, owners.reshape(-1, slots), indices, layout.content_size, progress)
    other = _differ(contents, pages, indices)
    if not other.all():
        indices, contents = indices[other], contents[other]
    after = replace(layout, entries=entries.count)
    return TableUpdate(after, indices, contents, len(added), changed, deleted, moved)


def _fill(
    entries: Entries,
    owners: Owners,
    indices: npt.NDArray[np.int64],
    content_size: int,
    progress: StagedProgress,
) -> Bytes:
    contents = np.empty((len(indices), content_size), dtype=np.uint8)
    chunk = max(1, _CHUNK_BYTES // content_size)
    for start in range(0, len(indices), chunk):
        progress(start, len(indices), "filling")
        part = owners[indices[start : start + chunk]]
        fill_pages(entries, part.reshape(-1), part.shape[1], contents[start : start + chunk], 0)
    progress(len(indices), len(indices), "filling")
    return contents


def _differ(contents: Bytes, pages: Bytes, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which contents are not those that the pages have."""
    differs = np.empty(len(indices), dtype=np.bool_)
    chunk = max(1, _CHUNK_BYTES // contents.shape[1])
    for start in range(0, len(indices), chunk):
        part = contents[start : start + chunk]
        before = pages[indices[start : start + chunk], : part.shape[1]]
        differs[start : start + chunk] = (part != before).any(axis=1)
    return differs


def _wishes_like(layout: TableLayout, rows: Rows) -> Wishes:
    """The sizes of a table that is to be as another, as far as the rows allow it."""
    wishes = Wishes(layout.page_size, layout.value_size, None, layout.proof_levels)
    if not rows.count:
        return wishes
    sizes = Sizes.of_rows(rows, None)
    if sizes.largest > layout.max_value_size:
        return Wishes(layout.page_size, None, None, None)
    plan, _ = choose(sizes, wishes)
    if plan.proof_levels > tree_height(plan.num_pages):
        return replace(wishes, proof_levels=None)
    return wishes


def _fragments_like(old: TableLayout, new: TableLayout) -> int:
    """As many as a lookup asks for now, if not more, so that lookups stay as they are."""
    if not new.value_size:
        return 1
    return max(new.fragments, min(old.fragments, MAX_VALUE_SIZE // new.value_size))


def _silent(done: int, total: int, name: str) -> None:
    pass
