# Planning and packing at the C level, for engines: docs/reference/cython.md. This file includes no
# header of this library, so other packages can cimport it from an installation. Names with a
# leading underscore are private.
#
# Nothing here allocates once a packer has seen its largest batch. Functions declared `except -1`
# raise the same exceptions as the Python methods. Functions declared `noexcept nogil` check
# nothing.
cimport cython
from libc.stdint cimport uint8_t, uint64_t

# Return the end of the chunk that begins at `start`: min(start + cap, total). 0 <= start < total,
# and cap is 1 or more.
cdef Py_ssize_t chunk_stop(Py_ssize_t start, Py_ssize_t total, Py_ssize_t cap) noexcept nogil


# Not safe for two threads at a time. Threads that share a packer hold a lock until they have read
# the keys.
@cython.final
cdef class KeyPacker:
    cdef readonly uint64_t num_pages           # pages of the table that the keys must be for
    cdef readonly Py_ssize_t key_size          # bytes, and the distance between packed keys
    cdef readonly Py_ssize_t keys_per_query    # of the batch last packed, 1 to 3
    cdef readonly Py_ssize_t query_count       # of the batch last packed; 0 after an error
    cdef readonly int party                    # of all its keys, 0 or 1; -1 if there is none
    cdef int _log_pages
    cdef uint8_t* _keys
    cdef Py_ssize_t _capacity

    cdef int _reserve(self, Py_ssize_t size) except -1

    # Check and pack a batch of morphogen.Query, all with the same number of keys. Raises the
    # errors of `pack`. Pointers that `chunk_keys` returned before are no longer valid.
    cdef int pack_batch(self, list queries) except -1

    # Return the packed keys from one query on, 0 <= first_query < query_count. The keys of its
    # chunk lie side by side. The first query's keys are 64-byte aligned, all others 16-byte
    # aligned. The memory belongs to the packer, and stays in place until it packs again or is
    # freed.
    cdef const uint8_t* chunk_keys(self, Py_ssize_t first_query) noexcept nogil
