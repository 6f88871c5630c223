"""Which slot of a keyword table belongs to which entry of the rows that it is to hold next.

A table has no keys: the check of a slot tells its entry. A slot whose check no entry has is free.
"""

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from morphogen.errors import TableBuildError
from morphogen.kernels cimport prefetch, scaled
from morphogen.keyword.entries cimport (
    CHECK_AT,
    CHECK_BYTES,
    DIGEST_BYTES,
    ENTRY_COST,
    HEAD_BYTES,
    PIECE,
    Entries,
    Entry,
    EntryTable,
    check_entries,
    digest_of,
    entry_at,
)
from morphogen.keyword.rows cimport tell

cdef enum:
    BLOCK = 32  # entries or slots whose memory is asked for together

cdef uint32_t UNKNOWN = 0xFFFFFFFF  # the owner of a slot in use whose entry was not found yet
MAX_MATCHED = 2**32 - 2

cdef enum Finding:
    NONE
    SAME_KEY
    SAME_CHECK

cdef struct Matching:
    # A hash table by checks: 32 bits of a check, and the number of a slot plus 1. Entries that have
    # no slot are counted on from the last slot.
    uint64_t* places
    size_t capacity
    uint64_t mask
    const uint8_t* pages
    size_t page_size, slot_size, slots, all_slots
    uint64_t num_pages
    uint32_t* owners
    uint8_t* touched
    uint32_t* added
    size_t added_count, changed, freed
    size_t first, second


def match_entries(
    entries: Entries,
    pages: npt.NDArray[np.uint8],
    slots_per_page: int,
    owners: npt.NDArray[np.uint32],
    touched: npt.NDArray[np.uint8],
    *,
    mask: int = 2**64 - 1,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[npt.NDArray[np.uint32], int, int] | None:
    """Find the slot of each entry that the table has.

    Parameters
    ----------
    entries : Entries
        With the table's seed set.
    pages : numpy.ndarray
        uint8 (num_pages, page_size): the table as it is.
    slots_per_page : int
        The table's.
    owners : numpy.ndarray
        uint32 (num_pages * slots_per_page,): receives the entry of each slot, plus 1; 0 for a slot
        that is free, or was that of an entry which is no more.
    touched : numpy.ndarray
        uint8 (num_pages,): receives a 1 for each page of which a slot changes or becomes free.
    mask : int, optional
        For tests: the bits of both halves of a check that are compared.
    progress : callable, optional
        Called with the entries that are looked for, and all of them.

    Returns
    -------
    added : numpy.ndarray
        uint32: the entries that the table does not have, ascending.
    changed : int
        Entries whose slot has another value.
    freed : int
        Slots in use that no entry has.

    None if two keys have the same check, so that this seed will not do.

    Raises
    ------
    TableBuildError
        If two rows have the same key.
    ValueError
        If an array has another shape, the slots do not fit a page, or slots and entries are more
        than `MAX_MATCHED` together.
    MemoryError
        If there is no memory for the comparison.
    """
    check_entries(entries)
    cdef Entries looked_for = entries
    cdef const uint8_t[:, ::1] old = pages
    cdef uint32_t[::1] owner_of = owners
    cdef uint8_t[::1] touched_view = touched
    cdef Matching found
    cdef size_t at = 0
    found.num_pages = old.shape[0]
    found.page_size = old.shape[1]
    found.slots = slots_per_page
    found.slot_size = HEAD_BYTES + looked_for._value_size
    if found.slots == 0 or found.slots > found.page_size // found.slot_size:
        raise ValueError(f"slots_per_page must fit a page, not {slots_per_page}")
    found.all_slots = found.slots * found.num_pages
    if found.num_pages == 0 or found.all_slots + looked_for.count > <size_t>MAX_MATCHED:
        raise ValueError(
            f"slots and entries must be 1 to {MAX_MATCHED} together, not "
            f"{found.all_slots + looked_for.count}"
        )
    if <size_t>owner_of.shape[0] != found.all_slots:
        raise ValueError(f"owners must have {found.all_slots} numbers, not {len(owners)}")
    if <size_t>touched_view.shape[0] != found.num_pages:
        raise ValueError(f"touched must have {found.num_pages} bytes, not {len(touched)}")
    cdef size_t most = found.all_slots + looked_for.count
    found.capacity = most + most // 4 + 16
    cdef uint64_t[::1] places = np.zeros(found.capacity, dtype=np.uint64)
    added = np.empty(looked_for.count + 1, dtype=np.uint32)
    cdef uint32_t[::1] added_view = added
    found.places = &places[0]
    found.mask = mask
    found.pages = &old[0, 0]
    found.owners = &owner_of[0]
    found.touched = &touched_view[0]
    found.added = &added_view[0]
    found.added_count = found.changed = found.freed = 0
    while at < found.all_slots:
        tell(None, 0, 0)
        with nogil:
            index_some(&found, &at)
    at = 0
    cdef Finding finding = NONE
    cdef EntryTable table
    with looked_for.rows:
        table = looked_for.table()
        while at < looked_for.count:
            tell(progress, at, looked_for.count)
            with nogil:
                finding = match_some(&table, &found, &at)
            if finding == SAME_CHECK:
                return None
            if finding == SAME_KEY:
                both = found.first + 1, found.second + 1
                raise TableBuildError(f"entries {both[0]} and {both[1]} have the same key", both)
    with nogil:
        free_others(&found)
    tell(progress, at, looked_for.count)
    return added[: found.added_count], found.changed, found.freed


cdef void index_some(Matching* found, size_t* at) noexcept nogil:
    cdef size_t first, slot, stop, done = 0
    while at[0] < found.all_slots and done < PIECE:
        first = at[0]
        stop = min(first + BLOCK, found.all_slots)
        for slot in range(first, stop):
            prefetch(found.places + place_of(found, slot_at(found, slot)))
        for slot in range(first, stop):
            found.owners[slot] = 0
            if length_of(slot_at(found, slot)):
                found.owners[slot] = UNKNOWN
                index_slot(found, slot)
        done += (stop - first) * (ENTRY_COST // 4 + found.slot_size)
        at[0] = stop


cdef void index_slot(Matching* found, size_t slot) noexcept nogil:
    cdef const uint8_t* check = slot_at(found, slot)
    cdef uint64_t mark = mark_of(found, check)
    cdef size_t place = place_of(found, check)
    cdef size_t other
    while found.places[place]:
        if found.places[place] >> 32 << 32 == mark:
            other = (found.places[place] & <uint64_t>0xFFFFFFFF) - 1
            if memcmp(slot_at(found, other), check, CHECK_BYTES) == 0:
                return  # no builder writes an entry twice: the first counts
        place = place + 1 if place + 1 < found.capacity else 0
    found.places[place] = mark | (slot + 1)


cdef Finding match_some(
    const EntryTable* table, Matching* found, size_t* at
) noexcept nogil:
    cdef uint8_t digests[BLOCK * DIGEST_BYTES]
    cdef Entry block[BLOCK]
    cdef Finding finding
    cdef uint64_t place
    cdef uint8_t* digest
    cdef size_t done = 0, first, number, stop
    while at[0] < table.count and done < PIECE:
        first = at[0]
        stop = min(first + BLOCK, table.count)
        for number in range(first, stop):
            block[number - first] = entry_at(table, number)
            digest = digests + DIGEST_BYTES * (number - first)
            digest_of(table, &block[number - first], digest)
            prefetch(found.places + place_of(found, digest + CHECK_AT))
            done += ENTRY_COST + block[number - first].row.key_size
        for number in range(first, stop):
            digest = digests + DIGEST_BYTES * (number - first)
            place = found.places[place_of(found, digest + CHECK_AT)] & <uint64_t>0xFFFFFFFF
            if place and place <= found.all_slots:
                prefetch(slot_at(found, place - 1))
                prefetch(slot_at(found, place - 1) + found.slot_size // 2)
                prefetch(slot_at(found, place - 1) + found.slot_size - 1)
        for number in range(first, stop):
            at[0] = number + 1
            finding = match(
                table, found, number, &block[number - first],
                digests + DIGEST_BYTES * (number - first),
            )
            if finding != NONE:
                return finding
    return NONE


cdef Finding match(
    const EntryTable* table,
    Matching* found,
    size_t number,
    const Entry* entry,
    const uint8_t* digest,
) noexcept nogil:
    """Give an entry the slot that has its check, or note that there is none."""
    cdef uint8_t other_digest[DIGEST_BYTES]
    cdef Entry other
    cdef const uint8_t* check = digest + CHECK_AT
    cdef uint64_t mark = mark_of(found, check)
    cdef size_t place = place_of(found, check)
    cdef size_t slot, owner
    while found.places[place]:
        if found.places[place] >> 32 << 32 == mark:
            slot = (found.places[place] & <uint64_t>0xFFFFFFFF) - 1
            if slot < found.all_slots and found.owners[slot] == UNKNOWN:
                if is_candidate(found, digest, slot // found.slots) and is_check(
                    found, check, slot_at(found, slot)
                ):
                    found.owners[slot] = <uint32_t>(number + 1)
                    if not holds(table, entry, check, slot_at(found, slot)):
                        found.changed += 1
                        found.touched[slot // found.slots] = 1
                    return NONE
            else:
                if slot < found.all_slots:
                    owner = found.owners[slot] - 1
                else:
                    owner = found.added[slot - found.all_slots]
                other = entry_at(table, owner)
                if (
                    entry.fragment == other.fragment
                    and entry.row.key_size == other.row.key_size
                    and memcmp(entry.row.key, other.row.key, entry.row.key_size) == 0
                ):
                    found.first = other.number
                    found.second = entry.number
                    return SAME_KEY
                digest_of(table, &other, other_digest)
                if is_check(found, check, other_digest + CHECK_AT):
                    return SAME_CHECK
        place = place + 1 if place + 1 < found.capacity else 0
    found.added[found.added_count] = <uint32_t>number
    found.added_count += 1
    found.places[place] = mark | (found.all_slots + found.added_count)
    return NONE


cdef bint holds(
    const EntryTable* table, const Entry* entry, const uint8_t* check, const uint8_t* slot
) noexcept nogil:
    """Whether a slot is byte for byte what the entry makes it."""
    cdef size_t begin = min(entry.fragment * table.value_size, entry.row.value_size)
    cdef size_t left = entry.row.value_size - begin
    cdef size_t held = min(left, table.value_size)
    cdef size_t at
    cdef uint8_t rest = 0
    if memcmp(slot, check, CHECK_BYTES) or length_of(slot) != <uint32_t>(left + 1):
        return False
    if memcmp(slot + HEAD_BYTES, entry.row.value + begin, held):
        return False
    for at in range(held, table.value_size):
        rest |= slot[HEAD_BYTES + at]
    return rest == 0


cdef void free_others(Matching* found) noexcept nogil:
    cdef size_t slot
    for slot in range(found.all_slots):
        if found.owners[slot] == UNKNOWN:
            found.owners[slot] = 0
            found.freed += 1
            found.touched[slot // found.slots] = 1


cdef bint is_candidate(const Matching* found, const uint8_t* digest, size_t page) noexcept nogil:
    cdef uint64_t words[3]
    memcpy(words, digest, sizeof(words))
    return (
        scaled(words[0], found.num_pages) == page
        or scaled(words[1], found.num_pages) == page
        or scaled(words[2], found.num_pages) == page
    )


cdef bint is_check(const Matching* found, const uint8_t* one, const uint8_t* other) noexcept nogil:
    cdef uint64_t half[2]
    cdef uint64_t other_half[2]
    memcpy(half, one, CHECK_BYTES)
    memcpy(other_half, other, CHECK_BYTES)
    return (
        (half[0] ^ other_half[0]) & found.mask == 0 and (half[1] ^ other_half[1]) & found.mask == 0
    )


cdef inline const uint8_t* slot_at(const Matching* found, size_t slot) noexcept nogil:
    cdef size_t page = slot // found.slots
    return found.pages + found.page_size * page + found.slot_size * (slot - found.slots * page)


cdef inline uint32_t length_of(const uint8_t* slot) noexcept nogil:
    cdef uint32_t length
    memcpy(&length, slot + CHECK_BYTES, sizeof(length))
    return length


cdef inline uint64_t mark_of(const Matching* found, const uint8_t* check) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, check + 8, sizeof(word))
    return (word & found.mask) >> 32 << 32


cdef inline size_t place_of(const Matching* found, const uint8_t* check) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, check, sizeof(word))
    return scaled(word & found.mask, found.capacity)
