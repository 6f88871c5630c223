# The pages in a device's memory.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from morphogen.engine.cuda._driver cimport Context, DeviceMemory, HostMemory, Stream


# Pages on the host, and what of them is still to be copied.
cdef struct Source:
    const uint8_t* body
    uint64_t body_pages
    const uint8_t* tail
    const int64_t* runs      # first and last page of each, one after the other
    Py_ssize_t left          # runs
    uint64_t offset          # of the device's next byte


@cython.final
cdef class DevicePages:
    cdef readonly uint64_t first_leaf
    cdef readonly uint64_t num_pages
    cdef readonly size_t page_size
    cdef readonly size_t stride       # bytes from one page to the next
    cdef Context _context
    cdef DeviceMemory _memory
    cdef public bint torn             # whether pages may be of two epochs

    cdef void* address(self) noexcept nogil
    cdef size_t _send(self, HostMemory piece, Stream stream, Source* source) except 0 nogil
    cdef void _copy_padded(self, uint8_t* out, const Source* source, uint64_t offset,
                           size_t size) noexcept nogil
