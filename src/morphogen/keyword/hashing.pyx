"""The hashes of a keyword table's entries, and the keys that are there twice."""

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from morphogen.kernels cimport prefetch, scaled
from morphogen.keyword.entries cimport (
    CHECK_AT,
    CHECK_BYTES,
    DIGEST_BYTES,
    ENTRY_COST,
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
    BLOCK = 32  # entries whose memory is asked for together

cdef enum Finding:
    NONE
    SAME_KEY
    SAME_CHECK

cdef struct Seen:
    # A hash table by checks: 32 bits of a check, and the number of its entry plus 1.
    uint64_t* slots
    size_t capacity
    uint64_t mask
    bint keep_last
    uint8_t* dropped
    size_t first, second


def hash_entries(
    entries: Entries,
    num_pages: int,
    candidates: npt.NDArray[np.uint32],
    dropped: npt.NDArray[np.uint8] | None = None,
    *,
    last: bool = False,
    mask: int = 2**64 - 1,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int] | bool:
    """Hash all keys, and look for two that are equal.

    Parameters
    ----------
    entries : Entries
        With the seed set.
    num_pages : int
        Pages in the table, 1 to 2**32.
    candidates : numpy.ndarray
        uint32 (count, 3): receives the candidates of each entry.
    dropped : numpy.ndarray, optional
        uint8, one for each of all rows: receives a 1 for each row whose key another row has.
        Without it, such a row ends the work.
    last : bool, optional
        Whether the last row of a key stays, not the first.
    mask : int, optional
        For tests: the bits of both halves of a check that are compared.
    progress : callable, optional
        Called with the entries that are hashed, and all of them.

    Returns
    -------
    bool or tuple of (int, int)
        False if two keys have the same check, so that this seed will not do. The numbers of two
        rows with the same key if nothing is dropped; else True.

    Raises
    ------
    ValueError
        If an array has another shape, or num_pages is out of range.
    MemoryError
        If there is no memory for the comparison.
    """
    check_entries(entries)
    cdef Entries hashed = entries
    cdef uint32_t[:, ::1] pages = candidates
    cdef uint8_t[::1] marks
    cdef Seen seen
    cdef size_t at = 0
    if not 1 <= num_pages <= 2**32:
        raise ValueError(f"num_pages must be in 1..2**32, not {num_pages}")
    if pages.shape[0] != <Py_ssize_t>hashed.count or pages.shape[1] != 3:
        raise ValueError(f"candidates must have shape ({entries.count}, 3), not {candidates.shape}")
    seen.dropped = NULL
    if dropped is not None:
        marks = dropped
        if marks.shape[0] < <Py_ssize_t>hashed.rows.count:
            raise ValueError(f"dropped must have {hashed.rows.count} bytes, not {len(dropped)}")
        seen.dropped = &marks[0]
    if hashed.count == 0:
        return True
    seen.keep_last = last
    seen.mask = mask
    # Linear probing: three looks for most, of which the first brings the others' memory.
    seen.capacity = hashed.count + hashed.count // 4 + 16
    cdef uint64_t[::1] slots = np.zeros(seen.capacity, dtype=np.uint64)
    seen.slots = &slots[0]
    cdef uint64_t page_count = num_pages
    cdef Finding finding = NONE
    cdef EntryTable table
    with hashed.rows:
        table = hashed.table()
        while at < hashed.count:
            tell(progress, at, hashed.count)
            with nogil:
                finding = hash_some(&table, &at, page_count, &pages[0, 0], &seen)
            if finding == SAME_CHECK:
                return False
            if finding == SAME_KEY:
                return seen.first, seen.second
        tell(progress, at, hashed.count)
    return True


cdef Finding hash_some(
    const EntryTable* table, size_t* at, uint64_t num_pages, uint32_t* candidates, Seen* seen
) noexcept nogil:
    cdef uint8_t digests[BLOCK * DIGEST_BYTES]
    cdef uint64_t words[3]
    cdef uint8_t* digest
    cdef Entry entry
    cdef Finding finding
    cdef size_t done = 0, first, number, stop, word
    while at[0] < table.count and done < PIECE:
        first = at[0]
        stop = min(first + BLOCK, table.count)
        for number in range(first, stop):
            entry = entry_at(table, number)
            digest = digests + DIGEST_BYTES * (number - first)
            digest_of(table, &entry, digest)
            memcpy(words, digest, sizeof(words))
            for word in range(3):
                candidates[3 * number + word] = <uint32_t>scaled(words[word], num_pages)
            prefetch(seen.slots + place_of(seen, digest))
            done += ENTRY_COST + entry.row.key_size
        for number in range(first, stop):
            at[0] = number + 1
            finding = look(table, number, digests + DIGEST_BYTES * (number - first), seen)
            if finding != NONE:
                return finding
    return NONE


cdef Finding look(
    const EntryTable* table, size_t number, const uint8_t* digest, Seen* seen
) noexcept nogil:
    """Compare an entry with those before it that may have its check, and note it."""
    cdef uint8_t other_digest[DIGEST_BYTES]
    cdef Entry entry, other
    cdef uint64_t half[2]
    cdef uint64_t other_half[2]
    cdef size_t slot = place_of(seen, digest)
    cdef uint64_t mark
    memcpy(half, digest + CHECK_AT, CHECK_BYTES)
    mark = (half[1] & seen.mask) >> 32 << 32
    while seen.slots[slot]:
        if seen.slots[slot] >> 32 << 32 == mark:
            entry = entry_at(table, number)
            other = entry_at(table, (seen.slots[slot] & <uint64_t>0xFFFFFFFF) - 1)
            if (
                entry.fragment == other.fragment
                and entry.row.key_size == other.row.key_size
                and memcmp(entry.row.key, other.row.key, entry.row.key_size) == 0
            ):
                if seen.dropped == NULL:
                    seen.first = other.number
                    seen.second = entry.number
                    return SAME_KEY
                if seen.keep_last:
                    seen.dropped[other.number] = 1
                    seen.slots[slot] = mark | (number + 1)
                else:
                    seen.dropped[entry.number] = 1
                return NONE
            digest_of(table, &other, other_digest)
            memcpy(other_half, other_digest + CHECK_AT, CHECK_BYTES)
            if (
                (half[0] ^ other_half[0]) & seen.mask == 0
                and (half[1] ^ other_half[1]) & seen.mask == 0
            ):
                return SAME_CHECK
        slot = slot + 1 if slot + 1 < seen.capacity else 0
    seen.slots[slot] = mark | (number + 1)
    return NONE


cdef inline size_t place_of(const Seen* seen, const uint8_t* digest) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, digest + CHECK_AT, sizeof(word))
    return scaled(word & seen.mask, seen.capacity)
