"""The placing of a keyword table's entries: sizes, seeds, and rows with the same key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import numpy.typing as npt

from morphogen.authentication.shape import tree_height
from morphogen.checks import check_range
from morphogen.errors import TableBuildError
from morphogen.keyword.cuckoo import place
from morphogen.keyword.entries import MAX_ENTRIES, Entries
from morphogen.keyword.filling import fill_pages
from morphogen.keyword.hashing import hash_entries
from morphogen.keyword.layout import CANDIDATES, SEED_BYTES, Bytes, TableLayout
from morphogen.keyword.rows import Rows
from morphogen.keyword.sizes import Plan, Sizes, Wishes, advice, choose, most_of_a_value, no_room
from morphogen.progress import StagedProgress, stage

Duplicates = Literal["error", "first", "last"]
Owners = npt.NDArray[np.uint32]
Kept = npt.NDArray[np.uint32] | None  # the numbers of the rows that count; None for all

SEED_TRIES = 8
_MOST_PAGES = 2**32  # a candidate is kept in 32 bits
_NEXT_SEED = b"morphogen/kw/sd\0"
_PIECE = 1 << 18  # rows


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Placed:
    """A table whose entries have their slots, and whose pages are still to be filled."""

    layout: TableLayout
    entries: Entries
    owners: Owners
    tries: int
    advice: str | None
    reason: str | None

    def fill(self, pages: Bytes, first_page: int) -> None:
        """Fill consecutive pages, all of them but for their siblings."""
        fill_pages(self.entries, self.owners, self.layout.slots_per_page, pages, first_page)


def place_rows(
    rows: Rows,
    wishes: Wishes,
    seed: bytes | None,
    duplicates: Duplicates,
    progress: StagedProgress,
) -> Placed:
    """Choose a table's sizes, and place its entries.

    Parameters
    ----------
    rows : Rows
        Keys and values. Nothing may be added meanwhile.
    wishes : Wishes
        Sizes that are not to be chosen.
    seed : bytes or None
        The first seed that is tried; None for random ones.
    duplicates : str
        As `TableBuilder` takes it.
    progress : callable
        Called with the work done, the work in all, and the stage.

    Returns
    -------
    Placed

    Raises
    ------
    TableBuildError, ValueError, MemoryError
        As from `TableBuilder.build`.
    """
    if not rows.count:
        raise TableBuildError("a keyword table needs at least one entry, not 0")
    kept: Kept = None
    dropped = None if duplicates == "error" else np.zeros(rows.count, dtype=np.uint8)
    while True:
        sizes = Sizes.of_rows(rows, kept)
        plan, reason = _choose(rows, kept, sizes, wishes)
        entries = Entries(rows, kept, plan.value_size, plan.entries)
        for attempt in range(SEED_TRIES):
            used = _nth_seed(seed, attempt)
            candidates = np.empty((plan.entries, CANDIDATES), dtype=np.uint32)
            if not _hash(entries, used, plan, candidates, dropped, duplicates, progress):
                continue
            if dropped is not None and kept is None and dropped.any():
                break
            owners = place(candidates, plan.num_pages, plan.slots, stage(progress, "placing"))
            if owners is not None:
                text = advice(sizes, wishes, plan)
                return Placed(_layout(plan, used), entries, owners, attempt + 1, text, reason)
        else:
            raise TableBuildError(
                f"no table was found for {plan.entries} entries in {plan.num_pages} pages of "
                f"{plan.slots} slots with any of {SEED_TRIES} seeds: choose a load below "
                f"{plan.load:g}"
            )
        # Once more without the rows whose key another row has: fewer entries take fewer pages.
        kept = np.flatnonzero(dropped == 0).astype(np.uint32)


def _choose(rows: Rows, kept: Kept, sizes: Sizes, wishes: Wishes) -> tuple[Plan, str | None]:
    most = most_of_a_value(wishes)
    if sizes.largest > most:
        row = _first_larger_than(rows, kept, most)
        raise TableBuildError(f"entry {row}: {no_room(sizes, wishes)}", (row,))
    plan, reason = choose(sizes, wishes)
    check_range("proof_levels", plan.proof_levels, 0, tree_height(plan.num_pages))
    if plan.entries > MAX_ENTRIES or plan.num_pages > _MOST_PAGES:
        raise TableBuildError(
            f"a table is built of at most {MAX_ENTRIES} entries and {_MOST_PAGES} pages, not "
            f"{plan.entries} and {plan.num_pages}"
        )
    return plan, reason


def _first_larger_than(rows: Rows, kept: Kept, most: int) -> int:
    """The first row, counted from 1, whose value is larger."""
    for start in range(0, rows.count, _PIECE):
        piece = np.empty(min(_PIECE, rows.count - start), dtype=np.uint32)
        rows.value_sizes(piece, start)
        found = np.flatnonzero(piece > most) + start
        if kept is not None:
            found = found[np.isin(found, kept)]
        if len(found):
            return int(found[0]) + 1
    raise AssertionError("a value is larger")


def _hash(
    entries: Entries,
    seed: bytes,
    plan: Plan,
    candidates: Owners,
    dropped: Bytes | None,
    duplicates: Duplicates,
    progress: StagedProgress,
) -> bool:
    """Hash all keys; False if the seed gives two keys the same check."""
    entries.set_seed(seed)
    found = hash_entries(
        entries,
        plan.num_pages,
        candidates,
        dropped,
        last=duplicates == "last",
        progress=stage(progress, "hashing"),
    )
    if isinstance(found, tuple):
        first, second = found[0] + 1, found[1] + 1
        raise TableBuildError(f"entries {first} and {second} have the same key", (first, second))
    return found


def _layout(plan: Plan, seed: bytes) -> TableLayout:
    return TableLayout(
        plan.num_pages,
        plan.page_size,
        plan.slots,
        plan.value_size,
        seed,
        plan.entries,
        plan.fragments,
        plan.proof_levels,
    )


def _nth_seed(first: bytes | None, attempt: int) -> bytes:
    if first is None:
        return secrets.token_bytes(SEED_BYTES)
    if attempt == 0:
        return first
    number = attempt.to_bytes(4, "little")
    return blake2b(number, key=first, person=_NEXT_SEED, digest_size=SEED_BYTES).digest()
