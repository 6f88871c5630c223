# The pages in a device's memory.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from morphogen.engine.cuda._driver cimport Context, DeviceMemory


@cython.final
cdef class DevicePages:
    cdef readonly uint64_t num_pages
    cdef readonly size_t page_size
    cdef readonly size_t stride       # bytes from one page to the next
    cdef Context _context
    cdef DeviceMemory _memory

    cdef void* address(self) noexcept nogil
    cdef void _copy_padded(self, uint8_t* out, const uint8_t* body, uint64_t body_pages,
                           const uint8_t* tail, uint64_t offset, size_t size) noexcept nogil
