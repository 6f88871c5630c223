# The difference of two epochs' pages.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from morphogen.planner cimport KeyPacker


@cython.final
cdef class Patch:
    cdef readonly object indices
    cdef readonly object pages
    cdef uint64_t _first_leaf
    cdef const int64_t[::1] _indices
    cdef const uint8_t[:, ::1] _pages

    cdef int add(self, KeyPacker packer, uint8_t[:, :, ::1] out) except -1
