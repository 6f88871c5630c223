# What answers from the pages on a device.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from morphogen.engine.locks cimport CallLock
from morphogen.planner cimport KeyPacker

from morphogen.engine.cuda._driver cimport Context, Kernel
from morphogen.engine.cuda.device_pages cimport DevicePages


@cython.final
cdef class Scanner:
    cdef readonly CallLock lock
    cdef Context _context
    # Freed in this order: a lane's graph before the module that its kernel is of.
    cdef list _lanes         # as many as were asked for, and more once a batch asked for more
    cdef list _kernels       # by the number of keys, see open_page_kernels
    cdef Kernel _read
    cdef int _read_blocks
    cdef DevicePages _pages
    cdef list _engines       # weak references
    cdef size_t _key_size
    cdef unsigned int _tiles  # the most of any kernel
    cdef bint _unclean       # whether a launch may have left sums behind
    cdef readonly bint generated
    cdef readonly bint broken
    cdef readonly object failed
    cdef readonly object grid
    cdef readonly str ptx
    cdef readonly str code

    cdef int check_whole(self) except -1
    cdef int answer(self, KeyPacker packer, list ranges, uint8_t[:, :, ::1] out, strategy,
                    double[:, ::1] times) except -1
    cdef int _prepare(self, Py_ssize_t lanes, bint graph, int keys) except -1
    cdef int _clean(self) except -1
    cdef int _settle(self) except -1
