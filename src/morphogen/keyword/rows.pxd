# The rows of a keyword table in native memory, for the Cython modules that read them.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef struct Row:
    const uint8_t* key
    size_t key_size
    const uint8_t* value
    size_t value_size


cdef class Rows:
    cdef uint8_t* _bytes
    cdef size_t _used, _capacity
    cdef uint64_t* _starts
    cdef size_t _starts_capacity
    cdef readonly size_t count
    cdef int _readers  # while one is there, nothing is added: the memory stays where it is
    cdef bint _adding

    cdef int _reserve(self, size_t more) except -1
    cdef int _append(self, object key, object value) except -1
    cdef const char* _bytes_of(self, str what, object given, Py_ssize_t* size) except NULL


cdef inline size_t read_size(const uint8_t** at) noexcept nogil:
    # 7 bits a byte, the lowest first; the last byte is below 128.
    cdef size_t size = 0
    cdef int shift = 0
    while at[0][0] >= 128:
        size |= <size_t>(at[0][0] & 127) << shift
        shift += 7
        at[0] += 1
    size |= <size_t>at[0][0] << shift
    at[0] += 1
    return size


cdef inline Row read_row(const uint8_t* at) noexcept nogil:
    cdef Row row
    row.key_size = read_size(&at)
    row.value_size = read_size(&at)
    row.key = at
    row.value = at + row.key_size
    return row


cdef int tell(object progress, size_t done, size_t total) except -1
