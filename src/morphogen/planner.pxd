# Planning and packing at the C level, for engines: docs/reference/cython.md. This file needs no
# header of this library, so that modules outside it can cimport it from an installation. What
# begins with an underscore is not for them.
#
# Nothing here allocates once a packer has seen its largest batch. What is `except -1` raises Python
# exceptions, as the Python methods do; what is `noexcept nogil` checks nothing.
cimport cython
from libc.stdint cimport uint8_t, uint64_t

# Where the chunk that begins at `start` ends: min(start + cap, total).
# 0 <= start < total, and cap is 1 or more.
cdef Py_ssize_t chunk_stop(Py_ssize_t start, Py_ssize_t total, Py_ssize_t cap) noexcept nogil


# Not safe for two threads at a time: whoever shares one holds a lock until the keys are read.
@cython.final
cdef class KeyPacker:
    cdef readonly uint64_t num_pages           # that the keys must be for
    cdef readonly Py_ssize_t key_size          # bytes, and the distance between packed keys
    cdef readonly Py_ssize_t keys_per_query    # of the batch last packed, 1 to 3
    cdef readonly Py_ssize_t query_count       # of the batch last packed; 0 after an error
    cdef int _log_pages
    cdef uint8_t* _keys
    cdef Py_ssize_t _capacity

    cdef int _reserve(self, Py_ssize_t size) except -1

    # Check and pack a batch of morphogen.Query, all with the same number of keys. Raises what
    # `pack` raises. Whatever `chunk_keys` gave before is no longer valid.
    cdef int pack_batch(self, list queries) except -1

    # The packed keys from one query on, 0 <= first_query < query_count: those of its chunk are
    # side by side. The first query's are 64-byte aligned, and all 16-byte aligned. They are the
    # packer's, and stay where they are until it packs again or is freed.
    cdef const uint8_t* chunk_keys(self, Py_ssize_t first_query) noexcept nogil
