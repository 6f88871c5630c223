"""A lane: a stream of the device, with the buffers of the chunk that is in it."""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from morphogen.kernels cimport kVectorBytes

from morphogen.engine.cuda._driver cimport (
    Context,
    DeviceMemory,
    Event,
    HostMemory,
    LaunchGraph,
    Stream,
)
from morphogen.engine.cuda.bit_pages cimport BitBuffers, BitKernel, BitPages
from morphogen.engine.cuda.device_pages cimport DevicePages
from morphogen.engine.cuda.page_kernel cimport PageKernel


cdef enum:
    # Columns of a row of times.
    SUBMIT
    DEVICE
    WAIT
    COPY


def sums_size(keys: int, stride: int, tiles: int) -> int:
    """Bytes of device memory that a lane takes: a sum for each key, and a counter for each tile."""
    return keys * stride + tiles * sizeof(unsigned int)


cdef double microseconds() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1e6 + now.tv_nsec * 1e-3


@cython.final
@cython.no_gc
cdef class Lane:
    """A stream and the buffers of the chunk that is in it.

    Parameters
    ----------
    context : Context
    pages : DevicePages
    key_size : int
        Bytes.
    keys : int
        Keys that a chunk may have, until `reserve` is asked for more.
    tiles : int
        The most parts of a page that a kernel makes.
    """

    def __cinit__(
        self, Context context, DevicePages pages, size_t key_size, int keys, tiles: int
    ) -> None:
        self._context = context
        self.stream = Stream(context)
        self._page_size = pages.page_size
        self._tiles = tiles
        self._start = Event(context, True)
        self._stop = Event(context, True)
        self.job.pages = pages.address()
        self.job.first_leaf = pages.first_leaf
        self.job.vectors = pages.stride // kVectorBytes
        self.job.key_bytes = key_size
        self.reserve(keys)

    cdef int reserve(self, int keys) except -1:
        """Make room for chunks of so many keys. The lane must be empty.

        Without memory for them, the lane keeps the room that it has.
        """
        cdef size_t stride = <size_t>self.job.vectors * kVectorBytes, sums = keys * stride
        cdef DeviceMemory memory
        cdef HostMemory answers
        if keys <= self._capacity:
            return 0
        memory = DeviceMemory(self._context, sums_size(keys, stride, self._tiles))
        answers = HostMemory(self._context, sums)
        with nogil:
            memory.clear(self.stream)
            self.stream.synchronize()
        self._sums = memory
        self._answers = answers
        self._capacity = keys
        self.job.accumulators = memory.address()
        self.job.finished = <unsigned int*>(<uint8_t*>memory.address() + sums)
        self.job.answers = answers.device_pointer()
        return 0

    cdef int reserve_bits(self, BitPages pages, BitKernel kernel) except -1:
        """Make room for chunks of a kernel for wide chunks. The lane must be empty."""
        self.reserve(kernel.keys)
        if self._bits is None:
            self._bits = BitBuffers(pages, self.job.key_bytes)
        return self._bits.reserve(self._context, kernel, self.stream)

    cdef int open_graph(self) except -1:
        """Make the graph with which `submit` replays launches."""
        if self._graph is None:
            self._graph = LaunchGraph(self._context)
        return 0

    cdef uint8_t* answers(self) noexcept nogil:
        return self._answers.pointer()

    cdef int clean(self) except -1 nogil:
        """Make sums and counters zero, as every launch must find them, after one that failed."""
        self._sums.clear(self.stream)
        self.stream.synchronize()
        self.unclean = False
        return 0

    cdef int submit(self, PageKernel kernel, const uint8_t* keys, unsigned int key_count,
                    uint8_t* out, bint graph, double* times) except -1 nogil:
        """Put a chunk into the lane, which must be empty and have room for it."""
        cdef void* parameters[2]
        cdef double begun
        if times == NULL and self.counter is not None:
            times = self._row
        begun = microseconds() if times != NULL else 0
        memcpy(self._keys, keys, key_count * <size_t>self.job.key_bytes)
        kernel.shape(&self.job)
        self.job.keys = key_count
        parameters[0] = &self.job
        parameters[1] = self._keys
        if times != NULL:
            self._start.record(self.stream)
        if graph:
            self._graph.launch(
                kernel.kernel, kernel.blocks, kernel.threads, parameters, self.stream
            )
        else:
            kernel.kernel.launch(kernel.blocks, kernel.threads, parameters, self.stream)
        self._note(key_count, out, times)
        if times != NULL:
            self._stop.record(self.stream)
            times[SUBMIT] = microseconds() - begun
        return 0

    cdef int submit_bits(self, BitKernel kernel, const uint8_t* keys, unsigned int key_count,
                         uint8_t* out, double* times) except -1 nogil:
        """As `submit`, on the laid out pages for which `reserve_bits` has made room."""
        cdef double begun
        if times == NULL and self.counter is not None:
            times = self._row
        begun = microseconds() if times != NULL else 0
        if times != NULL:
            self._start.record(self.stream)
        self._bits.launch(kernel, keys, key_count, &self.job, self.stream)
        self._note(key_count, out, times)
        if times != NULL:
            self._stop.record(self.stream)
            times[SUBMIT] = microseconds() - begun
        return 0

    cdef void _note(self, unsigned int pages, uint8_t* out, double* times) noexcept nogil:
        self._pending = True
        self._pages = pages
        self._out = out
        self._times = times

    cdef int settle(self) except -1 nogil:
        """Wait for the chunk in the lane after an error, and forget it."""
        self._pending = False
        self.unclean = True
        return self.stream.synchronize()

    cdef int finish(self) except -1 nogil:
        """Wait for the chunk in the lane, if there is one, and hand its answer over."""
        cdef size_t stride = <size_t>self.job.vectors * kVectorBytes
        cdef size_t page
        cdef double begun = 0, waited = 0
        if not self._pending:
            return 0
        if self._times != NULL:
            begun = microseconds()
        self._pending = False
        self.stream.synchronize()
        if self._times != NULL:
            waited = microseconds()
        if stride == self._page_size:
            memcpy(self._out, self._answers.pointer(), self._pages * self._page_size)
        else:
            for page in range(self._pages):
                memcpy(self._out + page * self._page_size, self._answers.pointer() + page * stride,
                       self._page_size)
        if self._times != NULL:
            self._times[WAIT] = waited - begun
            self._times[COPY] = microseconds() - waited
            self._times[DEVICE] = 1e3 * self._stop.milliseconds_since(self._start)
            if self._times == self._row:
                with gil:
                    self._count()
        return 0

    cdef int _count(self) except -1:
        self.counter(self._row[SUBMIT], self._row[DEVICE], self._row[WAIT], self._row[COPY])
        return 0
