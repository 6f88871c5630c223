"""Give every key one slot among those of its candidate pages: cuckoo hashing with buckets.

The search is local search allocation (Khosla, "Balls into Bins Made Faster", ESA 2013). Each slot
has a label, a lower bound of how many entries must move before it can be free. An entry takes the
slot of the smallest label among all of its candidates, and the entry that was there looks for
another. No choice is random. The search takes linear time, and nearly always finds places if there
are some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_STEP = 1 << 14  # entries between two calls of progress
# The labels of a table that can be built stay below a small multiple of its logarithm; those of one
# that cannot grow without end. One byte holds this.
_HOPELESS = 200
# The moves of an entry grow as a table fills. These limits are far above the moves of a table with
# one slot a page at a load of 0.91.
_MOVES_EACH = 30
_MOVES_MORE = 10_000


def place(
    candidates: Sequence[Sequence[int]],
    num_pages: int,
    slots_per_page: int,
    progress: Callable[[int], object] | None = None,
) -> list[int] | None:
    """Place entries.

    Parameters
    ----------
    candidates : sequence of sequence of int
        The pages that each entry may lie in, three of them; some may coincide.
    num_pages, slots_per_page : int
        The table.
    progress : callable, optional
        Called with the entries that are placed.

    Returns
    -------
    list of int or None
        The entry of each of the num_pages * slots_per_page slots, -1 where it is empty; None if
        the search gave up.
    """
    owners = [-1] * (num_pages * slots_per_page)
    labels = bytearray(num_pages * slots_per_page)
    lowest = bytearray(num_pages)  # the smallest label of each page
    moves_left = _MOVES_EACH * len(candidates) + _MOVES_MORE
    for entry in range(len(candidates)):
        if progress is not None and entry % _STEP == 0:
            progress(entry)
        moving = entry
        while moving >= 0:
            moves_left -= 1
            first, second, third = candidates[moving]
            # Its page, and the two that it could move on to from there.
            if lowest[second] < lowest[first]:
                first, second = second, first
            if lowest[third] < lowest[first]:
                first, third = third, first
            label = lowest[first]
            if label >= _HOPELESS or moves_left < 0:
                return None
            start = first * slots_per_page
            slot = labels.index(label, start, start + slots_per_page)
            onward = _HOPELESS
            if second != first:
                onward = lowest[second] + 1
            if third != first:
                onward = min(onward, lowest[third] + 1)
            labels[slot] = onward
            lowest[first] = min(labels[start : start + slots_per_page])
            moving, owners[slot] = owners[slot], moving
    return owners
