"""Build a keyword table, whose pages are looked up by key.

`TableLayout` says where the keys are, and looks them up; section 12 of docs/protocol.md defines
every byte.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from morphogen.checks import check_range
from morphogen.errors import TableBuildError
from morphogen.keyword.cuckoo import place
from morphogen.keyword.layout import (
    HEAD_BYTES,
    MAX_VALUE_SIZE,
    SEED_BYTES,
    Bytes,
    TableLayout as TableLayout,
    hash_key,
)
from morphogen.pages import MAX_PAGE_SIZE
from morphogen.progress import Progress

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
    """

    pages: Bytes
    layout: TableLayout
    tries: int


def build(
    items: Iterable[tuple[bytes, bytes]],
    *,
    page_size: int = 4096,
    load: float | None = None,
    seed: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[Bytes, TableLayout]:
    """Build a keyword table.

    Parameters
    ----------
    items : iterable of tuple of bytes
        Keys with their values: at least one. Each key is there once.
    page_size : int, optional
        Bytes a page. The largest value and 20 bytes more must fit it.
    load : float, optional
        Entries for each slot, above 0 and at most 1: empty slots are wasted space, and the fuller
        a table, the harder it is to build. By default 0.9, or 0.85 where a page has room for one
        entry only.
    seed : bytes, optional
        16 bytes, for tests and for tables that must come out alike: the first seed that is tried,
        from which those that follow are derived. By default each comes from the operating system's
        cryptographic random number generator.
    progress : callable, optional
        Called with the work done and the work in all.

    Returns
    -------
    pages : numpy.ndarray
        uint8 of shape (num_pages, page_size).
    layout : TableLayout
        The places of the keys: a client needs it to look one up.

    Raises
    ------
    TableBuildError
        If there are no items, a key is there twice, a value does not fit a page, or no table was
        found for any of 8 seeds.
    TypeError
        If a key or a value is not bytes.
    ValueError
        If page_size, load or seed is out of its range.

    Notes
    -----
    The same items in the same order with the same seed give the same table.

    Each key lies in one of three pages that BLAKE2b (RFC 7693) picks: cuckoo hashing with buckets,
    placed by local search allocation (Khosla, "Balls into Bins Made Faster", ESA 2013).

    Examples
    --------
    >>> from morphogen.keyword import build
    >>> words = {b"apple": b"a fruit", b"carrot": b"a root"}
    >>> pages, layout = build(words.items(), page_size=512)
    >>> layout.find(b"carrot", pages[list(layout.candidates(b"carrot"))])
    b'a root'
    """
    built = build_table(items, page_size=page_size, load=load, seed=seed, progress=progress)
    return built.pages, built.layout


def build_table(
    items: Iterable[tuple[bytes, bytes]],
    *,
    page_size: int = 4096,
    load: float | None = None,
    seed: bytes | None = None,
    progress: Progress | None = None,
) -> BuiltTable:
    """Build a keyword table as `build` does, and say how many seeds it took.

    Parameters
    ----------
    items : iterable of tuple of bytes
        As `build` takes them.
    page_size : int, optional
        As `build` takes it.
    load : float, optional
        As `build` takes it.
    seed : bytes, optional
        As `build` takes it.
    progress : callable, optional
        As `build` takes it.

    Returns
    -------
    BuiltTable
        The table, and how many seeds it took.

    Raises
    ------
    TableBuildError, TypeError, ValueError
        As from `build`.
    """
    check_range("page_size", page_size, 1, MAX_PAGE_SIZE)
    if load is not None and not 0 < load <= 1:
        raise ValueError(f"load must be above 0 and at most 1, not {load}")
    if seed is not None and len(seed) != SEED_BYTES:
        raise ValueError(f"seed must have {SEED_BYTES} bytes, not {len(seed)}")
    keys, values, value_size = _collect(items, page_size)
    slots = page_size // (HEAD_BYTES + value_size)
    if load is None:
        load = LOAD if slots > 1 else LOAD_OF_SINGLE_SLOTS
    num_pages = math.ceil(len(keys) / (load * slots))
    report = progress if progress is not None else _silent
    for attempt in range(SEED_TRIES):
        used = _nth_seed(seed, attempt)
        layout = TableLayout(num_pages, page_size, slots, value_size, used, len(keys))
        placed = _attempt(keys, layout, report)
        if placed is not None:
            pages = _fill(values, *placed, layout, report)
            return BuiltTable(pages, layout, attempt + 1)
    raise TableBuildError(
        f"no table was found for {len(keys)} entries in {num_pages} pages of {slots} slots with "
        f"any of {SEED_TRIES} seeds: choose a load below {load:g}"
    )


def _silent(done: int, total: int) -> None:
    pass


def _collect(
    items: Iterable[tuple[bytes, bytes]], page_size: int
) -> tuple[list[bytes], list[bytes], int]:
    """The keys, the values, and the size of the largest value."""
    rows: dict[bytes, int] = {}
    values: list[bytes] = []
    largest = 0
    for row, (key, value) in enumerate(items, start=1):
        if not isinstance(key, bytes):
            raise TypeError(f"entry {row}: a key must be bytes, not {type(key).__name__}")
        if not isinstance(value, bytes):
            raise TypeError(f"entry {row}: a value must be bytes, not {type(value).__name__}")
        first = rows.setdefault(key, row)
        if first != row:
            raise TableBuildError(f"entries {first} and {row} have the same key")
        if HEAD_BYTES + len(value) > page_size or len(value) > MAX_VALUE_SIZE:
            raise TableBuildError(
                f"entry {row}: a value of {len(value)} bytes takes {HEAD_BYTES + len(value)} in "
                f"the table, more than a page of {page_size} bytes has room for"
            )
        largest = max(largest, len(value))
        values.append(value)
    if not values:
        raise TableBuildError("a keyword table needs at least one entry, not 0")
    return list(rows), values, largest


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
