"""The building of a keyword table from entries that arrive one by one or in batches."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np

from morphogen.checks import check_range
from morphogen.errors import TableBuildError
from morphogen.keyword.cuckoo import place
from morphogen.keyword.file import TableHeader, write_table
from morphogen.keyword.layout import (
    HEAD_BYTES,
    MAX_VALUE_SIZE,
    SEED_BYTES,
    Bytes,
    TableLayout,
    hash_key,
)
from morphogen.pages import MAX_PAGE_SIZE
from morphogen.progress import Progress, StagedProgress, stage

Duplicates = Literal["error", "first", "last"]
SEED_TRIES = 8
LOAD = 0.9
LOAD_OF_SINGLE_SLOTS = 0.85  # with one slot a page, no large table is fuller than 0.917
_NEXT_SEED = b"morphogen/kw/sd\0"
_STEP = 1 << 14  # entries between two calls of progress


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BuiltTable:
    """A keyword table in memory.

    Parameters
    ----------
    pages : numpy.ndarray
        uint8 of shape (num_pages, page_size).
    layout : TableLayout
        The places of the keys.
    tries : int
        Seeds that it took, 1 or more.
    advice : str or None, optional
        What a few large values cost the table, and what would save it.
    reason : str or None, optional
        Why the pages have their size, where it was left to the builder.
    """

    pages: Bytes
    layout: TableLayout
    tries: int
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
        What a few large values cost the table, and what would save it.
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
        Bytes a page; None lets the builder choose.
    value_size : int, optional
        Bytes of a value that a slot has room for. By default the builder chooses.
    load : float, optional
        Entries for each slot, above 0 and at most 1: empty slots are wasted space, and the fuller
        a table, the harder it is to build. By default 0.9, or 0.85 where a page has room for one
        entry only.
    seed : bytes, optional
        16 bytes, for tests and for tables that must come out alike: the first seed that is tried,
        from which those that follow are derived. By default each comes from the operating system's
        cryptographic random number generator.
    proof_levels : int, optional
        Siblings in each page. By default the builder chooses.
    duplicates : {"error", "first", "last"}, optional
        What becomes of a key that is there twice: it is refused, or the first of its values counts,
        or the last.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or is out of its range.
    """

    def __init__(
        self,
        *,
        page_size: int | None = 4096,
        value_size: int | None = None,
        load: float | None = None,
        seed: bytes | None = None,
        proof_levels: int | None = None,
        duplicates: Duplicates = "error",
    ) -> None:
        if page_size is not None:
            check_range("page_size", page_size, 1, MAX_PAGE_SIZE)
        if value_size is not None:
            check_range("value_size", value_size, 0, MAX_VALUE_SIZE)
        if load is not None and not 0 < load <= 1:
            raise ValueError(f"load must be above 0 and at most 1, not {load}")
        if seed is not None and len(seed) != SEED_BYTES:
            raise ValueError(f"seed must have {SEED_BYTES} bytes, not {len(seed)}")
        if duplicates not in ("error", "first", "last"):
            raise ValueError(f"duplicates must be error, first or last, not {duplicates}")
        self._page_size = 4096 if page_size is None else page_size
        self._value_size = value_size
        self._load = load
        self._seed = seed
        self._proof_levels = proof_levels
        self._duplicates = duplicates
        self._keys: list[bytes] = []
        self._values: list[bytes] = []

    def __len__(self) -> int:
        return len(self._keys)

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
        """
        self.add_many((key,), (value,))

    def add_many(self, keys: Sequence[bytes | str], values: Sequence[bytes | str]) -> None:
        """Add entries: all of them, or where one is refused, none.

        Parameters
        ----------
        keys, values : sequence of bytes or str
            As many values as keys.

        Raises
        ------
        TypeError, MemoryError
            As from `add`.
        ValueError
            As from `add`, and if there are not as many values as keys.
        """
        if len(keys) != len(values):
            raise ValueError(
                f"there must be a value for each of {len(keys)} keys, not {len(values)}"
            )
        first = len(self) + 1
        added = [_encode("key", row, key) for row, key in enumerate(keys, first)]
        self._values += [_encode("value", row, value) for row, value in enumerate(values, first)]
        self._keys += added

    def build(self, progress: StagedProgress | None = None) -> BuiltTable:
        """Build the table in memory.

        Parameters
        ----------
        progress : callable, optional
            Called with the work done, the work in all, and the name of the stage.

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
            If value_size or proof_levels is out of the range that these entries leave.
        MemoryError
            If there is no memory for the table.
        """
        return _build(self, stage(progress, "building") if progress is not None else _silent)

    def write(
        self, path: str | os.PathLike[str], progress: StagedProgress | None = None
    ) -> WrittenTable:
        """Build the table, and write it to a file without holding it in memory.

        Parameters
        ----------
        path : path-like
            A file that is there is replaced once the new one is whole on the disk.
        progress : callable, optional
            As for `build`.

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
        built = self.build(progress)
        writing = stage(progress, "writing") if progress is not None else None
        header = write_table(path, built.pages, built.layout, progress=writing)
        return WrittenTable(header, built.tries, built.advice, built.reason)


def _encode(what: str, row: int, text: object) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"entry {row}: its {what} is text with a lone surrogate at {error.start}"
            ) from None
    raise TypeError(f"entry {row}: a {what} must be bytes or str, not {type(text).__name__}")


def _silent(done: int, total: int) -> None:
    pass


def _build(builder: TableBuilder, report: Progress) -> BuiltTable:
    page_size = builder._page_size
    keys, values, value_size = _collect(builder)
    if builder._value_size is not None:
        value_size = builder._value_size
    slots = page_size // (HEAD_BYTES + value_size)
    load = builder._load
    if load is None:
        load = LOAD if slots > 1 else LOAD_OF_SINGLE_SLOTS
    num_pages = math.ceil(len(keys) / (load * slots))
    for attempt in range(SEED_TRIES):
        used = _nth_seed(builder._seed, attempt)
        layout = TableLayout(num_pages, page_size, slots, value_size, used, len(keys), version=1)
        placed = _attempt(keys, layout, report)
        if placed is not None:
            pages = _fill(values, *placed, layout, report)
            return BuiltTable(pages, layout, attempt + 1)
    raise TableBuildError(
        f"no table was found for {len(keys)} entries in {num_pages} pages of {slots} slots with "
        f"any of {SEED_TRIES} seeds: choose a load below {load:g}"
    )


def _collect(builder: TableBuilder) -> tuple[list[bytes], list[bytes], int]:
    """The keys, the values, and the size of the largest value."""
    rows: dict[bytes, int] = {}
    values: list[bytes] = []
    largest = 0
    for row, (key, value) in enumerate(zip(builder._keys, builder._values, strict=True), start=1):
        first = rows.setdefault(key, row)
        if first != row and builder._duplicates == "error":
            raise TableBuildError(f"entries {first} and {row} have the same key", (first, row))
        if HEAD_BYTES + len(value) > builder._page_size or len(value) > MAX_VALUE_SIZE:
            raise TableBuildError(
                f"entry {row}: a value of {len(value)} bytes takes {HEAD_BYTES + len(value)} in "
                f"the table, more than a page of {builder._page_size} bytes has room for",
                (row,),
            )
        largest = max(largest, len(value))
        if builder._duplicates == "last":
            rows[key] = row
    if not rows:
        raise TableBuildError("a keyword table needs at least one entry, not 0")
    kept = sorted(rows.values())
    values = [builder._values[row - 1] for row in kept]
    return [builder._keys[row - 1] for row in kept], values, max(map(len, values))


def _nth_seed(first: bytes | None, attempt: int) -> bytes:
    if first is None:
        return secrets.token_bytes(SEED_BYTES)
    if attempt == 0:
        return first
    number = attempt.to_bytes(4, "little")
    return blake2b(number, key=first, person=_NEXT_SEED, digest_size=SEED_BYTES).digest()


def _attempt(
    keys: Sequence[bytes], layout: TableLayout, report: Progress
) -> tuple[list[int], list[bytes]] | None:
    """The entry of each slot, -1 for none, and each entry's check; None if this seed will not do.

    Hashing is the first third of the work, placing the second, filling the pages the last.
    """
    total = 3 * len(keys)
    pages: list[list[int]] = []
    checks: list[bytes] = []
    for row, key in enumerate(keys):
        if row % _STEP == 0:
            report(row, total)
        candidates, check = hash_key(key, layout.seed, layout.num_pages)
        pages.append(candidates)
        checks.append(check)
    if len(set(checks)) != len(checks):  # once in 2**128 pairs of keys
        return None
    slots = place(
        pages,
        layout.num_pages,
        layout.slots_per_page,
        lambda done: report(len(keys) + done, total),
    )
    return None if slots is None else (slots, checks)


def _fill(
    values: Sequence[bytes],
    slots: Sequence[int],
    checks: Sequence[bytes],
    layout: TableLayout,
    report: Progress,
) -> Bytes:
    pages = np.zeros((layout.num_pages, layout.page_size), dtype=np.uint8)
    flat = pages.reshape(-1).data
    total = 3 * len(values)
    done = 2 * len(values)
    for slot, row in enumerate(slots):
        if row < 0:
            continue
        if done % _STEP == 0:
            report(done, total)
        done += 1
        page, place_in_page = divmod(slot, layout.slots_per_page)
        start = page * layout.page_size + place_in_page * layout.slot_size
        value = values[row]
        entry = checks[row] + (len(value) + 1).to_bytes(4, "little") + value
        flat[start : start + len(entry)] = entry
    report(total, total)
    return pages


def add_items(builder: TableBuilder, items: Iterable[tuple[bytes | str, bytes | str]]) -> None:
    """Add entries from pairs, some at a time."""
    keys: list[bytes | str] = []
    values: list[bytes | str] = []
    for key, value in items:
        keys.append(key)
        values.append(value)
        if len(keys) == _STEP:
            builder.add_many(keys, values)
            keys.clear()
            values.clear()
    builder.add_many(keys, values)
