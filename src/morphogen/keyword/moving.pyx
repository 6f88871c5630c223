"""Place entries in a keyword table that has others, which move only where they must.

An entry takes a free slot of a candidate page. Where there is none, it takes that of an entry which
moves to another of its own candidates, and so on: the chain that touches the fewest pages is found
by a breadth-first search over pages, in which a page costs nothing if it is touched anyway.
"""

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from morphogen.kernels cimport prefetch, scaled
from morphogen.keyword.entries cimport (
    DIGEST_BYTES,
    Entries,
    Entry,
    EntryTable,
    check_entries,
    digest_of,
    entry_at,
    row_of_entry,
)
from morphogen.keyword.rows cimport tell

cdef enum:
    MOST_PAGES = 1 << 16  # that one search looks at
    MOST_ENTRIES = 1 << 20  # that one search hashes
    # All searches together: a table that takes more is too full. The time is near that of hashing
    # all of its entries a few times.
    HASHES_EACH = 4
    HASHES_MORE = 1 << 22
    # Entries that are hashed to find a chain with one page less than the one that is known.
    PATIENCE = 512
    PIECE = 1 << 14  # entries that are hashed, or placed, between two calls of progress

cdef uint32_t NO_NODE = 0xFFFFFFFF

# A page that a chain can lead to.
cdef struct Node:
    size_t page
    size_t slot  # of the page before, whose entry moves here
    uint32_t before

cdef struct Search:
    uint64_t num_pages
    size_t slots
    uint32_t* owners
    uint8_t* touched
    uint32_t* reached  # by page, the last search that came there
    uint32_t number  # of this search, from 1
    Node* nodes
    size_t count, most
    # Nodes that are to be looked at: of the present cost, and of one page more.
    uint32_t* queue
    uint32_t* later
    size_t queued, laters
    uint32_t goal  # a node whose page has a free slot, or NO_NODE
    bint is_best  # no other goal can touch fewer pages
    size_t hashed  # by this search
    int64_t hashes_left  # of all searches
    size_t moved


def place_more(
    entries: Entries,
    added: npt.NDArray[np.uint32],
    slots_per_page: int,
    owners: npt.NDArray[np.uint32],
    touched: npt.NDArray[np.uint8],
    progress: Callable[[int, int], object] | None = None,
) -> int | None:
    """Place entries beside those that have a slot.

    Parameters
    ----------
    entries : Entries
        With the table's seed set.
    added : numpy.ndarray
        uint32: the entries that have no slot yet.
    slots_per_page : int
        The table's.
    owners : numpy.ndarray
        uint32 (num_pages * slots_per_page,): the entry of each slot, plus 1; 0 where it is free.
        Changed in place.
    touched : numpy.ndarray
        uint8 (num_pages,): 1 for each page that changes anyway. Changed in place.
    progress : callable, optional
        Called with the entries that are placed, and all of them.

    Returns
    -------
    int or None
        How many others moved. None if an entry finds no place, or only after too long a search: the
        table is too full.

    Raises
    ------
    ValueError
        If an array has another shape, or a number of an entry is out of range.
    MemoryError
        If there is no memory for the search.
    """
    check_entries(entries)
    cdef Entries held = entries
    cdef const uint32_t[::1] added_view = added
    cdef uint32_t[::1] owner_of = owners
    cdef uint8_t[::1] touched_view = touched
    cdef size_t at = 0, count = added_view.shape[0]
    cdef Search search
    search.num_pages = touched_view.shape[0]
    search.slots = slots_per_page
    if search.slots == 0 or <size_t>owner_of.shape[0] != search.slots * search.num_pages:
        raise ValueError(f"owners must be those of {len(touched)} pages, not {len(owners)}")
    if count and np.max(added) >= held.count or np.max(owners, initial=0) > held.count:
        raise ValueError(f"the number of an entry must be below {held.count}")
    if count == 0:
        return 0
    search.most = min(search.num_pages, MOST_PAGES)
    cdef uint32_t[::1] reached = np.zeros(search.num_pages, dtype=np.uint32)
    cdef uint8_t[::1] nodes = np.empty(search.most * sizeof(Node), dtype=np.uint8)
    cdef uint32_t[:, ::1] queues = np.empty((2, search.most), dtype=np.uint32)
    search.owners = &owner_of[0]
    search.touched = &touched_view[0]
    search.reached = &reached[0]
    search.nodes = <Node*>&nodes[0]
    search.queue = &queues[0, 0]
    search.later = &queues[1, 0]
    search.number = 0
    search.hashes_left = <int64_t>HASHES_EACH * held.count + HASHES_MORE
    search.moved = 0
    cdef bint placed = True
    cdef EntryTable table
    with held.rows:
        table = held.table()
        while at < count and placed:
            tell(progress, at, count)
            with nogil:
                placed = place_some(&table, &search, &added_view[0], count, &at)
    tell(progress, at, count)
    return search.moved if placed else None


cdef bint place_some(
    const EntryTable* table, Search* search, const uint32_t* added, size_t count, size_t* at
) noexcept nogil:
    cdef size_t done = 0
    while at[0] < count and done < PIECE:
        find_chain(table, search, added[at[0]])
        if search.goal == NO_NODE:
            return False
        follow(search, added[at[0]])
        done += search.hashed
        at[0] += 1
    return True


cdef void find_chain(const EntryTable* table, Search* search, size_t entry) noexcept nogil:
    """Find the goal whose chain touches the fewest pages."""
    cdef size_t next_one = 0, patience = PATIENCE
    cdef uint32_t* queue
    search.number += 1
    search.count = 0
    search.queued = 0
    search.laters = 0
    search.goal = NO_NODE
    search.is_best = False
    search.hashed = 0
    reach_candidates(table, search, entry, NO_NODE, 0)
    while not search.is_best:
        if next_one == search.queued:
            # All pages of this cost are known.
            if search.goal != NO_NODE or search.laters == 0:
                return
            queue = search.queue
            search.queue = search.later
            search.later = queue
            search.queued = search.laters
            search.laters = 0
            next_one = 0
        if search.hashed >= MOST_ENTRIES or search.hashes_left < 0:
            return
        if search.goal != NO_NODE:
            if patience < search.slots:
                return
            patience -= search.slots
        look_behind(table, search, search.queue[next_one])
        next_one += 1


cdef void look_behind(const EntryTable* table, Search* search, uint32_t node) noexcept nogil:
    """Reach the pages that the entries of a full page could move to."""
    cdef size_t slot
    cdef const uint32_t* owners = search.owners + search.slots * search.nodes[node].page
    # The rows of a page lie anywhere: ask for their memory ahead, in two steps.
    for slot in range(search.slots):
        prefetch(table.starts + row_of_entry(table, owners[slot] - 1))
    for slot in range(search.slots):
        prefetch(table.bytes + table.starts[row_of_entry(table, owners[slot] - 1)])
    for slot in range(search.slots):
        reach_candidates(table, search, owners[slot] - 1, node, slot)
        if search.is_best:
            return


cdef void reach_candidates(
    const EntryTable* table, Search* search, size_t number, uint32_t before, size_t slot
) noexcept nogil:
    cdef uint8_t digest[DIGEST_BYTES]
    cdef uint64_t words[3]
    cdef Entry entry = entry_at(table, number)
    cdef size_t word
    digest_of(table, &entry, digest)
    memcpy(words, digest, sizeof(words))
    search.hashed += 1
    search.hashes_left -= 1
    for word in range(3):
        reach(search, scaled(words[word], search.num_pages), before, slot)


cdef void reach(Search* search, size_t page, uint32_t before, size_t slot) noexcept nogil:
    cdef uint32_t node = <uint32_t>search.count
    if search.is_best or search.reached[page] == search.number or search.count == search.most:
        return
    # The first way to a page is the cheapest: pages are looked at in the order of their cost.
    search.reached[page] = search.number
    search.nodes[node].page = page
    search.nodes[node].slot = slot
    search.nodes[node].before = before
    search.count += 1
    if free_slot(search, page) < search.slots:
        if search.touched[page]:
            search.goal = node
            search.is_best = True
        elif search.goal == NO_NODE:
            search.goal = node
    elif search.touched[page]:
        search.queue[search.queued] = node
        search.queued += 1
    else:
        search.later[search.laters] = node
        search.laters += 1


cdef void follow(Search* search, size_t entry) noexcept nogil:
    """Move the entries of a chain, the last first, and put the new one where the first was."""
    cdef const Node* node = search.nodes + search.goal
    cdef size_t slot = search.slots * node.page + free_slot(search, node.page)
    cdef size_t freed
    search.touched[node.page] = 1
    while node.before != NO_NODE:
        freed = search.slots * search.nodes[node.before].page + node.slot
        search.owners[slot] = search.owners[freed]
        search.moved += 1
        slot = freed
        node = search.nodes + node.before
        search.touched[node.page] = 1
    search.owners[slot] = <uint32_t>(entry + 1)


cdef inline size_t free_slot(const Search* search, size_t page) noexcept nogil:
    cdef const uint32_t* owners = search.owners + search.slots * page
    cdef size_t slot = 0
    while slot < search.slots and owners[slot]:
        slot += 1
    return slot
