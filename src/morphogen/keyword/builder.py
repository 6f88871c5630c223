"""The building of a keyword table from entries that arrive in batches.

The entries are kept in native memory, near their own size. Their keys are hashed, each entry gets a
slot, and the pages are filled and sealed, into memory or into a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from morphogen.authentication import fill_siblings
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import Shape
from morphogen.checks import as_int, check_range
from morphogen.keyword.file import TableHeader
from morphogen.keyword.layout import (
    HEAD_BYTES,
    MAX_VALUE_SIZE,
    SEED_BYTES,
    Bytes,
    TableLayout,
)
from morphogen.keyword.placement import Duplicates, place_rows
from morphogen.keyword.rows import Rows
from morphogen.keyword.sizes import Wishes
from morphogen.keyword.stream import write_pages
from morphogen.pages import MAX_PAGE_SIZE
from morphogen.progress import StagedProgress, stage

_MOST_LEVELS = 40  # of the largest table
_CHUNK_BYTES = 1 << 22  # of pages that are filled between two calls of progress
_BATCH = 1 << 13  # pairs that are added together


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BuiltTable:
    """A keyword table in memory.

    Parameters
    ----------
    pages : numpy.ndarray
        uint8 of shape (num_pages, page_size), contents with their siblings.
    layout : TableLayout
        The places of the keys.
    tries : int
        Seeds that it took, 1 or more.
    root : bytes
        32 bytes that stand for the whole table.
    advice : str or None, optional
        What a few large values cost the table, and what another value size would save.
    reason : str or None, optional
        Why the pages have their size, where it was left to the builder.
    """

    pages: Bytes
    layout: TableLayout
    tries: int
    root: bytes
    advice: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """A keyword table that was written to a file.

    Parameters
    ----------
    header : TableHeader
        The file's header.
    tries : int
        Seeds that it took, 1 or more.
    advice : str or None, optional
        What a few large values cost the table, and what another value size would save.
    reason : str or None, optional
        Why the pages have their size, where it was left to the builder.
    """

    header: TableHeader
    tries: int
    advice: str | None = None
    reason: str | None = None


class TableBuilder:
    """Builds a keyword table of entries that are added to it.

    Parameters
    ----------
    page_size : int or None, optional
        Bytes a page. None chooses the size with which a lookup exchanges the fewest bytes, among
        powers of two whose table is at most 5% larger than the smallest.
    value_size : int, optional
        Bytes of a value that a slot has room for; longer values take several slots, 32 at most. By
        default, of all sizes whose table is at most 5% larger than the smallest, the one with the
        fewest slots for the largest value.
    load : float, optional
        Entries for each slot, above 0 and at most 1: empty slots are wasted space, and the fuller
        a table, the harder it is to build. By default 0.9, or 0.85 where a page has room for one
        entry only.
    seed : bytes, optional
        16 bytes, for tests and for tables that must come out alike: the first seed that is tried,
        from which those that follow are derived. By default each comes from the operating system's
        cryptographic random number generator.
    proof_levels : int, optional
        Siblings in each page. By default as many as `default_proof_levels` says, but one for each
        256 bytes of a page at most.
    duplicates : {"error", "first", "last"}, optional
        What becomes of a key that is there twice: it is refused, or the first of its values counts,
        or the last.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or is out of its range.

    Notes
    -----
    An entry takes its own bytes and about 10 more until the builder is gone, and 20 more while a
    table is built. A table has at most 2**32 - 2 slots in use.

    Examples
    --------
    >>> from morphogen.keyword import TableBuilder
    >>> builder = TableBuilder(page_size=512)
    >>> builder.add_many(["apple", "carrot"], [b"a fruit", b"a root"])
    >>> built = builder.build()
    >>> built.layout.find(b"carrot", built.pages[list(built.layout.candidates(b"carrot"))])
    b'a root'
    """

    def __init__(
        self,
        *,
        page_size: SupportsIndex | None = 4096,
        value_size: SupportsIndex | None = None,
        load: float | None = None,
        seed: bytes | None = None,
        proof_levels: SupportsIndex | None = None,
        duplicates: Duplicates = "error",
    ) -> None:
        size = _checked("page_size", page_size, 1, MAX_PAGE_SIZE)
        levels = _checked("proof_levels", proof_levels, 0, _MOST_LEVELS)
        most = MAX_VALUE_SIZE
        if size is not None:
            most = min(most, max(0, size - HEAD_BYTES - HASH_BYTES * (levels or 0)))
            if levels is not None:
                check_range("proof_levels", levels, 0, (size - 1) // HASH_BYTES)
        if load is not None and not 0 < load <= 1:
            raise ValueError(f"load must be above 0 and at most 1, not {load}")
        if seed is not None and len(seed) != SEED_BYTES:
            raise ValueError(f"seed must have {SEED_BYTES} bytes, not {len(seed)}")
        if duplicates not in ("error", "first", "last"):
            raise ValueError(f"duplicates must be error, first or last, not {duplicates}")
        self._wishes = Wishes(size, _checked("value_size", value_size, 0, most), load, levels)
        self._seed = seed
        self._duplicates = duplicates
        self._rows = Rows()

    def __len__(self) -> int:
        return self._rows.count

    def add(self, key: bytes | str, value: bytes | str) -> None:
        """Add an entry.

        Parameters
        ----------
        key, value : bytes or str
            Text is stored as UTF-8.

        Raises
        ------
        TypeError
            If one of them is something else.
        ValueError
            If a text has lone surrogates, which UTF-8 does not know.
        MemoryError
            If there is no memory for the entry.
        MorphogenError
            If a table is being built.
        """
        self._rows.add_many((key,), (value,))

    def add_many(self, keys: Sequence[bytes | str], values: Sequence[bytes | str]) -> None:
        """Add entries: all of them, or where one is refused, none.

        Parameters
        ----------
        keys, values : sequence of bytes or str
            As many values as keys.

        Raises
        ------
        TypeError, MemoryError, MorphogenError
            As from `add`.
        ValueError
            As from `add`, and if there are not as many values as keys.
        """
        self._rows.add_many(keys, values)

    def build(self, progress: StagedProgress | None = None) -> BuiltTable:
        """Build the table in memory.

        Parameters
        ----------
        progress : callable, optional
            Called with the work done, the work in all, and the name of the stage: "hashing",
            "placing", "filling", "sealing".

        Returns
        -------
        BuiltTable
            The table, and what is to be said of it.

        Raises
        ------
        TableBuildError
            If there are no entries, a key is there twice, a value is too large, or no table was
            found for any of 8 seeds. Its ``entries`` are the numbers of the entries that it is
            about, counted from 1 in the order in which they were added.
        ValueError
            If proof_levels is more than the table's tree has.
        MemoryError
            If there is no memory for the table.
        """
        told = progress if progress is not None else _silent
        with self._rows:
            placed = place_rows(self._rows, self._wishes, self._seed, self._duplicates, told)
            layout = placed.layout
            pages = _empty_pages(layout.num_pages, layout.page_size)
            chunk = max(1, _CHUNK_BYTES // layout.page_size)
            for start in range(0, layout.num_pages, chunk):
                told(start, layout.num_pages, "filling")
                placed.fill(pages[start : start + chunk], start)
            told(layout.num_pages, layout.num_pages, "filling")
        sealing = stage(told, "sealing")
        tree = fill_siblings(pages, layout.proof_levels, layout.authenticated_bytes(), sealing)
        return BuiltTable(pages, layout, placed.tries, tree.root, placed.advice, placed.reason)

    def write(
        self, path: str | os.PathLike[str], progress: StagedProgress | None = None
    ) -> WrittenTable:
        """Build the table, and write it to a file without holding it in memory.

        Parameters
        ----------
        path : path-like
            A file that is there is replaced once the new one is whole on the disk.
        progress : callable, optional
            As for `build`; the last stage is "writing".

        Returns
        -------
        WrittenTable
            The header that was written, and what is to be said of the table.

        Raises
        ------
        TableBuildError, MemoryError
            As from `build`.
        OSError
            If the file cannot be written. The file that was there before is still there.
        ValueError
            As from `build`, and if path is something other than a file.
        """
        told = progress if progress is not None else _silent
        with self._rows:
            placed = place_rows(self._rows, self._wishes, self._seed, self._duplicates, told)
            layout = placed.layout
            shape = Shape(layout.num_pages, layout.page_size, layout.proof_levels)
            header = write_pages(path, shape, layout, placed.fill, stage(told, "writing"))
        return WrittenTable(header, placed.tries, placed.advice, placed.reason)

    def add_pairs(self, items: Iterable[tuple[bytes | str, bytes | str]]) -> None:
        """Add entries that come as pairs, some at a time.

        Parameters
        ----------
        items : iterable of tuple of bytes or str
            Keys with their values.

        Raises
        ------
        TypeError, ValueError, MemoryError, MorphogenError
            As from `add`. The entries before those that were added with the wrong one stay.
        """
        keys: list[bytes | str] = []
        values: list[bytes | str] = []
        for key, value in items:
            keys.append(key)
            values.append(value)
            if len(keys) == _BATCH:
                self._rows.add_many(keys, values)
                keys.clear()
                values.clear()
        self._rows.add_many(keys, values)


def _silent(done: int, total: int, name: str) -> None:
    pass


def _checked(name: str, value: SupportsIndex | None, least: int, most: int) -> int | None:
    if value is None:
        return None
    number = as_int(name, value)
    check_range(name, number, least, most)
    return number


def _empty_pages(num_pages: int, page_size: int) -> Bytes:
    if num_pages * page_size > sys.maxsize:
        raise MemoryError(f"no memory for {num_pages} pages of {page_size} bytes")
    return np.empty((num_pages, page_size), dtype=np.uint8)
