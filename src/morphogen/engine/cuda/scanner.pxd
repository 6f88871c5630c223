# What answers from the pages on a device.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from morphogen.engine.calls cimport Calls
from morphogen.planner cimport KeyPacker

from morphogen.engine.cuda._driver cimport Context, Kernel
from morphogen.engine.cuda.bit_pages cimport BitPages
from morphogen.engine.cuda.device_pages cimport DevicePages
from morphogen.engine.cuda.lane cimport Lane


@cython.final
cdef class Scanner:
    cdef readonly Calls lanes
    cdef Context _context
    # Freed in this order: a lane's graph before the module that its kernel is of.
    cdef list _lanes         # those of `lanes`
    cdef Py_ssize_t _opened  # as many as were asked for, and more once a batch asked for more
    cdef list _kernels       # by the number of keys, see open_page_kernels
    cdef list _chosen        # the same as a tuning has them
    cdef readonly object tuned  # the variants in it, by the most keys of a kernel
    cdef dict _variants      # the same of each variant that was asked for, by its name
    cdef object _facts       # of the device
    cdef Kernel _read
    cdef int _read_blocks
    cdef DevicePages _pages
    cdef BitPages _bits      # beside them, or None
    cdef list _engines       # weak references
    cdef size_t _key_size
    cdef object _counter     # as each lane has it
    cdef unsigned int _tiles  # the most of any kernel
    cdef readonly bint generated
    cdef readonly bint broken
    cdef readonly object failed
    cdef readonly object grid
    cdef readonly str ptx
    cdef readonly str code

    cdef int check_whole(self) except -1
    cdef object read(self, Lane lane)
    cdef list kernels_of(self, str variant)
    cdef int answer(self, Lane first, KeyPacker packer, list ranges, uint8_t[:, :, ::1] out,
                    strategy, double[:, ::1] times) except -1
    cdef int _answer_in(self, Lane lane, list kernels, KeyPacker packer, list ranges,
                        uint8_t[:, :, ::1] out, bint graph, double[:, ::1] times) except -1
    cdef int _answer_by_turns(self, list held, Py_ssize_t most, list kernels, KeyPacker packer,
                              list ranges, uint8_t[:, :, ::1] out, bint graph) except -1
    cdef Py_ssize_t _give_up(self, list held, Py_ssize_t at) except -1
    cdef int _submit(self, Lane lane, list kernels, KeyPacker packer, Py_ssize_t start,
                     Py_ssize_t stop, uint8_t* out, bint graph, double* times) except -1
    cdef bint _runs_on_bits(self, list kernels, unsigned int keys) noexcept
    cdef int _prepare(self, Lane lane, list kernels, unsigned int keys, bint graph) except -1
    cdef int _settle(self, list lanes) except -1
