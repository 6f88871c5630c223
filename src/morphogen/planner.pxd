# Planning and packing for engines. Nothing here allocates once a packer has seen its largest batch.
cimport cython
from libc.stdint cimport uint8_t, uint64_t

cdef Py_ssize_t chunk_stop(Py_ssize_t start, Py_ssize_t total, Py_ssize_t cap) noexcept nogil


@cython.final
cdef class KeyPacker:
    cdef readonly uint64_t num_pages
    cdef readonly Py_ssize_t key_size          # bytes, and the distance between packed keys
    cdef readonly Py_ssize_t keys_per_query    # of the batch last packed
    cdef readonly Py_ssize_t query_count       # of the batch last packed
    cdef int _log_pages
    cdef uint8_t* _keys
    cdef Py_ssize_t _capacity

    cdef int _reserve(self, Py_ssize_t size) except -1
    cdef int pack_batch(self, list queries) except -1
    cdef const uint8_t* chunk_keys(self, Py_ssize_t first_query) noexcept nogil
