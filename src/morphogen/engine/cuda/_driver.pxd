# The CUDA driver, as the GPU engine sees it: objects that own what they free, calls that raise.
cimport cython
from cuda.bindings cimport cydriver as cu
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


@cython.final
cdef class Context:
    cdef readonly int ordinal
    cdef cu.CUdevice _device
    cdef cu.CUcontext _handle
    cdef int _owner

    cdef bint is_usable(self) noexcept nogil
    cdef int enter(self) except -1 nogil
    cdef int leave(self) except -1 nogil


@cython.final
cdef class DeviceMemory:
    cdef Context _context
    cdef cu.CUdeviceptr _address
    cdef readonly size_t size

    cdef void* address(self) noexcept nogil
    cdef int clear(self, Stream stream) except -1 nogil
    cdef int copy_from(self, size_t offset, const uint8_t* source, size_t size,
                       Stream stream) except -1 nogil


@cython.final
cdef class HostMemory:
    cdef Context _context
    cdef void* _pointer
    cdef void* _device_pointer
    cdef readonly size_t size

    cdef uint8_t* pointer(self) noexcept nogil
    cdef void* device_pointer(self) noexcept nogil


@cython.final
cdef class Stream:
    cdef Context _context
    cdef cu.CUstream _handle

    cdef int synchronize(self) except -1 nogil


@cython.final
cdef class Event:
    cdef Context _context
    cdef cu.CUevent _handle

    cdef int record(self, Stream stream) except -1 nogil
    cdef int synchronize(self) except -1 nogil
    cdef double milliseconds_since(self, Event start) except -1 nogil


@cython.final
cdef class Module:
    cdef Context _context
    cdef cu.CUmodule _handle


@cython.final
cdef class Kernel:
    cdef Module _module
    cdef cu.CUfunction _handle
    cdef unsigned int _dynamic_shared

    cdef int resident_blocks(self, int threads) except -1
    cdef int launch(self, unsigned int blocks, unsigned int threads, void** parameters,
                    Stream stream) except -1 nogil


@cython.final
cdef class LaunchGraph:
    cdef Context _context
    cdef cu.CUgraph _graph
    cdef cu.CUgraphNode _node
    cdef cu.CUgraphExec _handle

    cdef int launch(self, Kernel kernel, unsigned int blocks, unsigned int threads,
                    void** parameters, Stream stream) except -1 nogil
