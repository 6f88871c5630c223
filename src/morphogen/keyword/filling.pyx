"""The filling of a keyword table's pages with its entries.

Section 12 of docs/protocol.md defines every byte.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from morphogen.kernels cimport prefetch
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
    row_of_entry,
)
from morphogen.keyword.rows cimport tell

cdef enum:
    AHEAD = 12  # slots

cdef struct Filling:
    const uint32_t* owners  # of the slots of these pages
    size_t slots  # a page
    uint8_t* pages
    size_t page_size
    size_t count
    size_t page, slot  # what is next


def fill_pages(
    entries: Entries,
    owners: npt.NDArray[np.uint32],
    slots_per_page: int,
    pages: npt.NDArray[np.uint8],
    first_page: int,
) -> None:
    """Fill consecutive pages with their entries, and all else of them with zeros.

    Parameters
    ----------
    entries : Entries
        With the seed set.
    owners : numpy.ndarray
        uint32: the entry of each slot, plus 1, as `place` gives it.
    slots_per_page : int
        The table's.
    pages : numpy.ndarray
        uint8 (pages, page_size).
    first_page : int
        The place of the first of them in the table.

    Raises
    ------
    ValueError
        If the table has no such pages, or they are too small.
    """
    check_entries(entries)
    cdef Entries held = entries
    cdef const uint32_t[::1] owner_of = owners
    cdef uint8_t[:, ::1] out = pages
    cdef Filling filling
    cdef size_t slot_size = HEAD_BYTES + held._value_size
    cdef size_t all_slots = owner_of.shape[0]
    cdef size_t all_pages
    filling.slots = slots_per_page
    filling.count = out.shape[0]
    filling.page_size = out.shape[1]
    if filling.slots == 0 or filling.slots > filling.page_size // slot_size:
        raise ValueError(f"slots_per_page must fit a page, not {slots_per_page}")
    if filling.count == 0:
        return
    all_pages = all_slots // filling.slots
    if filling.count > all_pages or <size_t>first_page > all_pages - filling.count:
        raise ValueError(f"first_page must be that of {filling.count} pages, not {first_page}")
    filling.owners = &owner_of[filling.slots * <size_t>first_page]
    filling.pages = &out[0, 0]
    filling.page = 0
    filling.slot = 0
    cdef EntryTable table
    with held.rows:
        table = held.table()
        while filling.page < filling.count:
            tell(None, 0, 0)
            with nogil:
                fill_some(&table, &filling)


cdef void fill_some(const EntryTable* table, Filling* filling) noexcept nogil:
    cdef uint8_t digest[DIGEST_BYTES]
    cdef uint8_t* page
    cdef uint8_t* at
    cdef Entry entry
    cdef size_t slot_size = HEAD_BYTES + table.value_size, done = 0
    cdef size_t begin, held, ahead, slot, slots = filling.slots * filling.count
    cdef uint32_t left
    while filling.page < filling.count and done < PIECE:
        page = filling.pages + filling.page_size * filling.page
        if filling.slot == 0:
            memset(page, 0, filling.page_size)
            done += filling.page_size
        while filling.slot < filling.slots and done < PIECE:
            slot = filling.page * filling.slots + filling.slot
            # The rows of a page lie anywhere: ask for their memory ahead, in two steps.
            ahead = slot + 2 * AHEAD
            if ahead < slots and is_entry(table, filling.owners[ahead]):
                prefetch(start_of(table, filling.owners[ahead]))
            ahead = slot + AHEAD
            if ahead < slots and is_entry(table, filling.owners[ahead]):
                prefetch(table.bytes + start_of(table, filling.owners[ahead])[0])
            if is_entry(table, filling.owners[slot]):
                entry = entry_at(table, filling.owners[slot] - 1)
                digest_of(table, &entry, digest)
                at = page + slot_size * filling.slot
                memcpy(at, digest + CHECK_AT, CHECK_BYTES)
                begin = min(entry.fragment * table.value_size, entry.row.value_size)
                left = <uint32_t>(entry.row.value_size - begin) + 1
                memcpy(at + CHECK_BYTES, &left, sizeof(left))
                held = min(entry.row.value_size - begin, table.value_size)
                memcpy(at + HEAD_BYTES, entry.row.value + begin, held)
                done += ENTRY_COST + entry.row.key_size + held
            filling.slot += 1
        if filling.slot == filling.slots:
            filling.page += 1
            filling.slot = 0


cdef inline bint is_entry(const EntryTable* table, size_t owner) noexcept nogil:
    return owner != 0 and owner <= table.count


cdef inline const uint64_t* start_of(const EntryTable* table, size_t owner) noexcept nogil:
    return table.starts + row_of_entry(table, owner - 1)
