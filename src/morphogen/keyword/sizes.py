"""The choice of a keyword table's sizes: of its values' places, its pages, and its proofs.

A slot as large as the largest value has room for any, and wastes the room of all that are shorter;
a smaller one makes fragments, and every lookup reads the pages of as many as the largest value has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import morphogen.dpf as dpf
from morphogen.authentication import default_proof_levels, num_cap_nodes
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.shape import LEAST_PAGE_OF_LEVEL, MOST_CAP_BYTES
from morphogen.errors import TableBuildError
from morphogen.keyword.layout import CANDIDATES, HEAD_BYTES, MAX_FRAGMENTS, MAX_VALUE_SIZE
from morphogen.keyword.rows import Rows

Numbers = npt.NDArray[np.int64]

LOAD = 0.9
LOAD_OF_SINGLE_SLOTS = 0.85  # with one slot a page, no large table is fuller than 0.917
_PAGE_SIZES = tuple(1 << exponent for exponent in range(8, 17))
_PIECE = 1 << 18  # rows


class Sizes:
    """How many values have which size.

    Parameters
    ----------
    sizes, counts : numpy.ndarray
        int64: each size that there is, ascending, and how many values have it.

    Attributes
    ----------
    total : int
        Values in all.
    largest : int
        The largest size.
    """

    total: int
    largest: int

    def __init__(self, sizes: Numbers, counts: Numbers) -> None:
        self._sizes = sizes
        self._up_to = np.concatenate(([0], np.cumsum(counts)))
        self.total = int(self._up_to[-1])
        self.largest = int(sizes[-1])

    @classmethod
    def of_rows(cls, rows: Rows, kept: npt.NDArray[np.uint32] | None) -> Sizes:
        """Count the sizes of the values of rows, of all or of some."""
        found: dict[int, int] = {}
        for start in range(0, rows.count, _PIECE):
            count = min(_PIECE, rows.count - start)
            piece = np.empty(count, dtype=np.uint32)
            rows.value_sizes(piece, start)
            if kept is not None:
                first, last = np.searchsorted(kept, (start, start + count))
                piece = piece[kept[first:last] - start]
            for size, times in zip(*np.unique(piece, return_counts=True), strict=True):
                found[int(size)] = found.get(int(size), 0) + int(times)
        order = sorted(found)
        return cls(
            np.array(order, dtype=np.int64),
            np.array([found[size] for size in order], dtype=np.int64),
        )

    def larger_than(self, sizes: Numbers) -> Numbers:
        """How many values are larger than each of some sizes."""
        larger: Numbers = self.total - self._up_to[np.searchsorted(self._sizes, sizes, "right")]
        return larger

    def entries(self, value_sizes: Numbers) -> Numbers:
        """How many entries all values make, for each size that an entry may hold."""
        found = np.full(len(value_sizes), self.total, dtype=np.int64)
        for fragments in range(1, MAX_FRAGMENTS):
            found += self.larger_than(fragments * np.maximum(value_sizes, 1))
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a table that is to be built."""

    num_pages: int
    page_size: int
    slots: int
    value_size: int
    entries: int
    fragments: int
    proof_levels: int
    load: float

    @property
    def nbytes(self) -> int:
        """Bytes of all pages."""
        return self.num_pages * self.page_size

    @property
    def pages_of_lookup(self) -> int:
        """Pages that a lookup asks for."""
        return CANDIDATES * self.fragments

    @property
    def bytes_of_lookup(self) -> int:
        """Bytes that a lookup exchanges with both servers, but for what their protocol adds."""
        return 2 * self.pages_of_lookup * (dpf.key_size(self.num_pages) + self.page_size)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the builder was told; None leaves it a choice."""

    page_size: int | None
    value_size: int | None
    load: float | None
    proof_levels: int | None


def plan_of(sizes: Sizes, wishes: Wishes, page_size: int, value_size: int) -> Plan | None:
    """The table of a page size and a value size; None if there is none.

    A page has as many proof levels as `default_proof_levels` says, but at most one for each 256
    bytes, and never so many that a slot has no room.
    """
    entries = int(sizes.entries(np.array([value_size]))[0])
    return _plan(sizes, wishes, page_size, value_size, entries)


def _plan(
    sizes: Sizes, wishes: Wishes, page_size: int, value_size: int, entries: int
) -> Plan | None:
    fragments = max(1, -(-sizes.largest // max(1, value_size)))
    room = page_size - HEAD_BYTES - value_size
    if room < 0 or fragments > MAX_FRAGMENTS or fragments * value_size > MAX_VALUE_SIZE:
        return None
    if fragments > 1 and value_size == 0:
        return None
    most = min(page_size // LEAST_PAGE_OF_LEVEL, room // HASH_BYTES)
    levels = wishes.proof_levels if wishes.proof_levels is not None else 0
    while True:  # more proofs make more pages, which may ask for more proofs
        slots = (page_size - HASH_BYTES * levels) // (HEAD_BYTES + value_size)
        if slots < 1:
            return None
        load = wishes.load
        if load is None:
            load = LOAD if slots > 1 else LOAD_OF_SINGLE_SLOTS
        num_pages = math.ceil(entries / (load * slots))
        if num_pages > dpf.MAX_PAGES:
            return None
        wanted = min(default_proof_levels(num_pages), most)
        if wishes.proof_levels is not None or wanted <= levels:
            break
        levels = wanted
    return Plan(num_pages, page_size, slots, value_size, entries, fragments, levels, load)


def best_value_size(sizes: Sizes, wishes: Wishes, page_size: int) -> Plan | None:
    """The table of the best value size, for pages of one size; None if there is none.

    Of all whose table is at most 5% larger than the smallest, it is the one with the fewest
    fragments; of those the smallest table, of those the largest value size.
    """
    values = np.array(sorted(set(_candidates(sizes, wishes, page_size))), dtype=np.int64)
    entries = sizes.entries(values)
    plans = [
        plan
        for value_size, count in zip(values.tolist(), entries.tolist(), strict=True)
        if (plan := _plan(sizes, wishes, page_size, value_size, count)) is not None
    ]
    near = nearly_smallest(plans)
    if not near:
        return None
    return min(near, key=lambda plan: (plan.fragments, plan.nbytes, -plan.value_size))


def nearly_smallest(plans: list[Plan]) -> list[Plan]:
    """Those at most 5% larger than the smallest."""
    smallest = min((plan.nbytes for plan in plans), default=0)
    return [plan for plan in plans if 20 * plan.nbytes <= 21 * smallest]


def _candidates(sizes: Sizes, wishes: Wishes, page_size: int) -> Iterator[int]:
    """The value sizes of which one is the best.

    Of all value sizes for which a page has the same number of slots, the largest makes the fewest
    entries and fragments, so it has the smallest table: no other needs to be looked at.
    """
    low = max(-(-sizes.largest // MAX_FRAGMENTS), min(sizes.largest, 1))
    high = min(sizes.largest, page_size - HEAD_BYTES)
    if low > high:
        return
    if wishes.proof_levels is None:
        # As many levels as any of the tables may have.
        entries = int(sizes.entries(np.array([low]))[0])
        load = wishes.load if wishes.load is not None else LOAD_OF_SINGLE_SLOTS
        num_pages = min(math.ceil(entries / load), dpf.MAX_PAGES)
        most = min(default_proof_levels(num_pages), page_size // LEAST_PAGE_OF_LEVEL)
        levels = range(most + 1)
    else:
        levels = range(wishes.proof_levels, wishes.proof_levels + 1)
    for level in levels:
        content = page_size - HASH_BYTES * level
        fewest = max(1, content // (HEAD_BYTES + high))
        most_slots = content // (HEAD_BYTES + low)
        if most_slots - fewest > high - low:
            yield from range(low, high + 1)
            return
        for slots in range(fewest, most_slots + 1):
            yield max(low, min(high, content // slots - HEAD_BYTES))


def choose(sizes: Sizes, wishes: Wishes) -> tuple[Plan, str | None]:
    """The sizes of a table, and why its pages have theirs if that was left open.

    Raises
    ------
    TableBuildError
        If the largest value does not fit.
    """
    if wishes.page_size is not None:
        plan = _choose(sizes, wishes, wishes.page_size)
        if plan is None:
            raise TableBuildError(no_room(sizes, wishes))
        return plan, None
    page_sizes = list(_PAGE_SIZES)
    plans: list[Plan] = []
    while not plans:
        if page_sizes[-1] > 1 << 32:
            raise TableBuildError(no_room(sizes, wishes))
        plans = [plan for size in page_sizes if (plan := _choose(sizes, wishes, size)) is not None]
        page_sizes.append(2 * page_sizes[-1])
    # A client keeps the cap.
    small_caps = [plan for plan in plans if _cap_bytes(plan) <= MOST_CAP_BYTES]
    plans = small_caps or plans
    smallest = min(plans, key=lambda plan: (plan.nbytes, plan.page_size))
    best = min(
        nearly_smallest(plans), key=lambda plan: (plan.bytes_of_lookup, plan.nbytes, plan.page_size)
    )
    reason = (
        f"pages of {best.page_size:,} bytes: a lookup exchanges {best.bytes_of_lookup:,} bytes, "
        f"the fewest of all sizes whose table is at most 5% larger than the smallest"
    )
    if best is not smallest:
        more = 100 * (best.nbytes - smallest.nbytes) / smallest.nbytes
        reason += (
            f" ({more:.1f}% here; with pages of {smallest.page_size:,} bytes a lookup exchanges "
            f"{smallest.bytes_of_lookup:,})"
        )
    return best, reason


def _choose(sizes: Sizes, wishes: Wishes, page_size: int) -> Plan | None:
    if wishes.value_size is not None:
        return plan_of(sizes, wishes, page_size, wishes.value_size)
    return best_value_size(sizes, wishes, page_size)


def _cap_bytes(plan: Plan) -> int:
    levels = min(plan.proof_levels, (plan.num_pages - 1).bit_length())
    return HASH_BYTES * num_cap_nodes(plan.num_pages, levels)


def most_of_a_value(wishes: Wishes) -> int:
    """Bytes of the largest value that a table can have."""
    slot = wishes.value_size
    if slot is None and wishes.page_size is not None:
        slot = max(0, _content(wishes, wishes.page_size) - HEAD_BYTES)
    return MAX_VALUE_SIZE if slot is None else min(MAX_FRAGMENTS * slot, MAX_VALUE_SIZE)


def _content(wishes: Wishes, page_size: int) -> int:
    return page_size - HASH_BYTES * (wishes.proof_levels or 0)


def no_room(sizes: Sizes, wishes: Wishes) -> str:
    """Why there is no table."""
    page_size = wishes.page_size
    if page_size is not None:
        slot, content = HEAD_BYTES + (wishes.value_size or 0), _content(wishes, page_size)
        if content < slot:
            return f"a slot takes {slot} bytes, a page of {page_size} bytes has room for {content}"
    most = most_of_a_value(wishes)
    if sizes.largest > most:
        return (
            f"a value has {sizes.largest} bytes, and {MAX_FRAGMENTS} slots of "
            f"{most // MAX_FRAGMENTS} bytes have room for {most} at most"
        )
    return f"a table has at most {dpf.MAX_PAGES} pages: choose a higher load than {wishes.load}"


def advice(sizes: Sizes, wishes: Wishes, plan: Plan) -> str | None:
    """What a few large values cost, and what another value size would save."""
    if plan.fragments > 1:
        larger = int(sizes.larger_than(np.array([plan.value_size]))[0])
        text = (
            f"{larger:,} of {sizes.total:,} values have more than {plan.value_size:,} bytes, the "
            f"largest {sizes.largest:,}: for them every lookup asks for {plan.pages_of_lookup} "
            f"pages instead of {CANDIDATES}"
        )
        whole = plan_of(sizes, wishes, plan.page_size, sizes.largest)
        if whole is not None:
            text += (
                f"; with a value size of {sizes.largest:,} it would ask for {CANDIDATES}, and the "
                f"table would take {whole.nbytes:,} bytes instead of {plan.nbytes:,}"
            )
        return text
    if wishes.value_size is None:
        return None
    free = Wishes(plan.page_size, None, wishes.load, wishes.proof_levels)
    best = best_value_size(sizes, free, plan.page_size)
    if best is None or 20 * plan.nbytes <= 21 * best.nbytes:
        return None
    return (
        f"with a value size of {best.value_size:,} the table would take {best.nbytes:,} bytes "
        f"instead of {plan.nbytes:,}, and a lookup would ask for {best.pages_of_lookup} pages "
        f"instead of {plan.pages_of_lookup}"
    )
