"""Give every entry one slot among those of its candidate pages: cuckoo hashing with buckets.

The search is local search allocation (Khosla, "Balls into Bins Made Faster", ESA 2013). Each slot
has a label, a lower bound of how many entries must move before it can be free. An entry takes the
slot of the smallest label among all of its candidates, and the entry that was there looks for
another. No choice is random. The search takes linear time, and nearly always finds places if there
are some.
"""

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr

from morphogen.keyword.rows cimport tell

cdef enum:
    # The labels of a table that can be built stay below a small multiple of its logarithm; those of
    # one that cannot grow without end. One byte holds this.
    HOPELESS = 200
    # The moves of an entry grow as a table fills. These limits are far above the moves of a table
    # with one slot a page at a load of 0.91.
    MOVES_EACH = 30
    MOVES_MORE = 10_000
    # Labels that are read between two calls of progress: some milliseconds.
    PIECE = 1 << 22

cdef struct Search:
    const uint32_t* candidates  # three for each entry
    size_t entries
    size_t num_pages
    size_t slots
    uint32_t* owners  # the entry of each slot, plus 1; 0 where it is empty
    uint8_t* labels  # of each slot
    uint8_t* lowest  # the smallest label of each page
    size_t placed
    size_t moving  # the entry that looks for a slot, plus 1; 0 for none
    int64_t moves_left
    bint given_up
    bint wrong  # a candidate is no page


def place(
    candidates: npt.NDArray[np.uint32],
    num_pages: int,
    slots_per_page: int,
    progress: Callable[[int, int], object] | None = None,
) -> npt.NDArray[np.uint32] | None:
    """Place entries.

    Parameters
    ----------
    candidates : numpy.ndarray
        uint32 (entries, 3): the pages that each entry may lie in, of which some may coincide.
    num_pages, slots_per_page : int
        The table.
    progress : callable, optional
        Called with the entries that are placed, and all of them.

    Returns
    -------
    numpy.ndarray or None
        uint32 (num_pages * slots_per_page,): the entry of each slot, plus 1; 0 where it is empty.
        None if the search gave up.

    Raises
    ------
    ValueError
        If there are not three candidates for each entry, or one is no page.
    MemoryError
        If there is no memory for the search.
    """
    cdef const uint32_t[:, ::1] pages = candidates
    if pages.shape[1] != 3:
        raise ValueError(f"candidates must be 3 for each entry, not {pages.shape[1]}")
    if num_pages < 1 or slots_per_page < 1:
        raise ValueError(f"a table has pages and slots, not {num_pages} of {slots_per_page}")
    owners = np.zeros(num_pages * slots_per_page, dtype=np.uint32)
    cdef uint32_t[::1] owners_view = owners
    cdef uint8_t[::1] labels = np.zeros(num_pages * slots_per_page, dtype=np.uint8)
    cdef uint8_t[::1] lowest = np.zeros(num_pages, dtype=np.uint8)
    cdef Search search
    if pages.shape[0] == 0:
        return owners
    search.candidates = &pages[0, 0]
    search.entries = pages.shape[0]
    search.num_pages = num_pages
    search.slots = slots_per_page
    search.owners = &owners_view[0]
    search.labels = &labels[0]
    search.lowest = &lowest[0]
    search.placed = 0
    search.moving = 0
    search.moves_left = <int64_t>MOVES_EACH * search.entries + MOVES_MORE
    search.given_up = False
    search.wrong = False
    while search.placed < search.entries and not search.given_up:
        tell(progress, search.placed, search.entries)
        with nogil:
            go_on(&search)
        if search.wrong:
            raise ValueError(f"candidates must be below {num_pages}")
    tell(progress, search.placed, search.entries)
    return None if search.given_up else owners


cdef void go_on(Search* search) noexcept nogil:
    """Go on for a few milliseconds."""
    cdef size_t moves = PIECE // (search.slots + 63) + 1
    cdef size_t first, second, third, start, slot, moved
    cdef const uint32_t* pages
    cdef uint8_t* lowest = search.lowest
    cdef uint8_t* labels
    cdef unsigned int label, onward
    while moves:
        if search.moving == 0:
            if search.placed == search.entries:
                return
            search.moving = search.placed + 1
            pages = search.candidates + 3 * search.placed
            if max(pages[0], pages[1], pages[2]) >= search.num_pages:
                search.wrong = True
                return
        moves -= 1
        search.moves_left -= 1
        pages = search.candidates + 3 * (search.moving - 1)
        first, second, third = pages[0], pages[1], pages[2]
        # Its page, and the two that it could move on to from there.
        if lowest[second] < lowest[first]:
            first, second = second, first
        if lowest[third] < lowest[first]:
            first, third = third, first
        label = lowest[first]
        if label >= HOPELESS or search.moves_left < 0:
            search.given_up = True
            return
        start = first * search.slots
        labels = search.labels + start
        slot = <uint8_t*>memchr(labels, label, search.slots) - labels
        onward = HOPELESS
        if second != first:
            onward = lowest[second] + 1
        if third != first:
            onward = min(onward, <unsigned int>lowest[third] + 1)
        labels[slot] = <uint8_t>onward
        lowest[first] = smallest(labels, search.slots)
        moved = search.owners[start + slot]
        search.owners[start + slot] = <uint32_t>search.moving
        search.moving = moved
        if moved == 0:
            search.placed += 1


cdef inline uint8_t smallest(const uint8_t* labels, size_t count) noexcept nogil:
    cdef uint8_t found = labels[0]
    cdef size_t at
    for at in range(1, count):
        found = labels[at] if labels[at] < found else found
    return found
