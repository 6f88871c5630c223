# The entries of a keyword table, for the Cython modules that hash them and fill pages with them.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from morphogen.kernels cimport Blake2b
from morphogen.keyword.rows cimport Row, Rows, read_row

cdef enum:
    CHECK_AT = 24  # of a digest: behind three candidates
    CHECK_BYTES = 16
    DIGEST_BYTES = CHECK_AT + CHECK_BYTES
    HEAD_BYTES = CHECK_BYTES + 4
    FRAGMENTS = 32  # the most that a value has
    PIECE = 1 << 21  # bytes that are hashed or copied between two calls of progress
    ENTRY_COST = 256  # bytes that might be copied in the time of all else that an entry takes

cdef struct Entry:
    size_t number  # of its row
    Row row
    size_t fragment

# Good while the rows are as they are.
cdef struct EntryTable:
    const uint8_t* bytes
    const uint64_t* starts
    const uint32_t* row_of  # the row of each entry; NULL where it is the entry's own number
    bint several  # whether a row may have several entries, which then follow each other
    size_t count
    size_t value_size
    const Blake2b* hashes  # of each fragment


cdef class Entries:
    cdef readonly size_t count
    cdef readonly Rows rows
    cdef size_t _value_size
    cdef size_t _used  # rows
    cdef object _kept  # owns what is next
    cdef const uint32_t* _row_of
    cdef bint _several
    cdef Blake2b _hashes[FRAGMENTS]

    cdef int _number_fragments(self) except -1
    cdef EntryTable table(self) noexcept


cdef int check_entries(object entries) except -1


cdef inline size_t row_of_entry(const EntryTable* table, size_t number) noexcept nogil:
    return number if table.row_of == NULL else table.row_of[number]


cdef inline Entry entry_at(const EntryTable* table, size_t number) noexcept nogil:
    cdef Entry entry
    entry.number = row_of_entry(table, number)
    entry.row = read_row(table.bytes + table.starts[entry.number])
    entry.fragment = 0
    if table.several:
        while number and table.row_of[number - 1] == entry.number:
            number -= 1
            entry.fragment += 1
    return entry


cdef inline void digest_of(
    const EntryTable* table, const Entry* entry, uint8_t* digest
) noexcept nogil:
    table.hashes[entry.fragment % FRAGMENTS].hash(entry.row.key, entry.row.key_size, digest)
