# A lane: a stream of the device, with the buffers of the chunk that is in it.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from morphogen.kernels cimport ChunkJob, kMaxKeyBytes, kWidestChunkKeys

from morphogen.engine.cuda._driver cimport (
    Context,
    DeviceMemory,
    Event,
    HostMemory,
    LaunchGraph,
    Stream,
)
from morphogen.engine.cuda.bit_pages cimport BitBuffers, BitKernel, BitPages
from morphogen.engine.cuda.page_kernel cimport PageKernel


cdef enum:
    # Times of a chunk: see ChunkTimes.
    PHASES = 4


@cython.final
cdef class Lane:
    cdef Stream stream
    cdef ChunkJob job
    cdef Context _context
    cdef int _capacity       # keys that the buffers have room for
    cdef unsigned int _tiles
    cdef DeviceMemory _sums
    cdef HostMemory _answers
    cdef Event _start
    cdef Event _stop
    cdef LaunchGraph _graph  # made when a batch first wants it
    cdef BitBuffers _bits    # the same
    cdef uint8_t _keys[kWidestChunkKeys * kMaxKeyBytes]
    cdef size_t _page_size
    cdef bint unclean        # whether a launch may have left sums behind
    cdef bint _pending
    cdef size_t _pages       # of the pending answer
    cdef uint8_t* _out       # of its answer
    cdef double* _times      # of the pending chunk, or NULL
    cdef double _row[PHASES]  # the times of a chunk that is counted
    cdef object counter       # called with the times of a chunk, or None

    cdef uint8_t* answers(self) noexcept nogil
    cdef int reserve(self, int keys) except -1
    cdef int open_graph(self) except -1
    cdef int reserve_bits(self, BitPages pages, BitKernel kernel) except -1
    cdef int submit(self, PageKernel kernel, const uint8_t* keys, unsigned int key_count,
                    uint8_t* out, bint graph, double* times) except -1 nogil
    cdef int submit_bits(self, BitKernel kernel, const uint8_t* keys, unsigned int key_count,
                         uint8_t* out, double* times) except -1 nogil
    cdef void _note(self, unsigned int pages, uint8_t* out, double* times) noexcept nogil
    cdef int clean(self) except -1 nogil
    cdef int settle(self) except -1 nogil
    cdef int finish(self) except -1 nogil
    cdef int _count(self) except -1
