# Pages laid out for the binary tensor cores, and the launches of wide chunks over them.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from morphogen.kernels cimport BitJob, ChunkJob, ExpandJob, TransposeJob

from morphogen.engine.cuda._driver cimport Context, DeviceMemory, HostMemory, Kernel, Module, Stream
from morphogen.engine.cuda.device_pages cimport DevicePages


@cython.final
cdef class BitKernel:
    cdef Kernel kernel
    cdef readonly int keys           # at most
    cdef readonly object grid        # its runs are of groups
    cdef unsigned int threads
    cdef unsigned int blocks
    cdef BitJob _shape               # only the fields of the grid

    cdef void shape(self, BitJob* job) noexcept nogil


@cython.final
cdef class BitPages:
    cdef Context _context
    cdef Module _module
    cdef Kernel _transpose
    cdef Kernel expand
    cdef list _kernels               # by size
    cdef DevicePages _pages          # that it lays out
    cdef DeviceMemory _memory
    cdef unsigned int _blocks        # of a launch that transposes
    cdef uint64_t groups
    cdef uint64_t leaves
    cdef unsigned int tiles          # the most of any kernel

    cdef BitKernel kernel_for(self, int keys)


@cython.final
cdef class BitBuffers:
    cdef BitPages _pages
    cdef HostMemory _host_keys
    cdef DeviceMemory _keys
    cdef DeviceMemory _selection
    cdef ExpandJob _expand
    cdef BitJob _job
    cdef uint64_t _full_device
    cdef int _capacity               # keys that there is room for

    cdef int reserve(self, Context context, BitKernel kernel, Stream stream) except -1
    cdef int launch(self, BitKernel kernel, const uint8_t* keys, unsigned int key_count,
                    const ChunkJob* sums, Stream stream) except -1 nogil
