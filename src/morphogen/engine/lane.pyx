"""A lane: a stream of the device, with the buffers of the chunk that is in it."""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from morphogen.kernels cimport kBlockThreads, kMaxChunkKeys, kVectorBytes

from morphogen.engine._driver cimport Context, DeviceMemory, Event, HostMemory, Kernel, Stream
from morphogen.engine.device_pages cimport DevicePages


cdef enum:
    # Columns of a row of times.
    SUBMIT
    DEVICE
    WAIT
    COPY


def sums_size(stride: int, tiles: int) -> int:
    """Bytes of device memory that a lane takes: a sum for each key, and a counter for each tile."""
    return kMaxChunkKeys * stride + tiles * sizeof(unsigned int)


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
    grid : Grid
    """

    def __cinit__(self, Context context, DevicePages pages, size_t key_size, grid: Grid) -> None:
        cdef size_t sums = kMaxChunkKeys * pages.stride
        self.stream = Stream(context)
        self._page_size = pages.page_size
        self._sums = DeviceMemory(context, sums_size(pages.stride, grid.tiles))
        self._answers = HostMemory(context, sums)
        self._start = Event(context, True)
        self._stop = Event(context, True)
        self.job.pages = pages.address()
        self.job.accumulators = self._sums.address()
        self.job.finished = <unsigned int*>(<uint8_t*>self._sums.address() + sums)
        self.job.answers = self._answers.device_pointer()
        self.job.pages_per_run = pages.num_pages // <uint64_t>grid.runs
        self.job.longer_runs = pages.num_pages % <uint64_t>grid.runs
        self.job.runs = grid.runs
        self.job.tiles = grid.tiles
        self.job.tile_vectors = grid.tile_vectors
        self.job.vectors = pages.stride // kVectorBytes
        self.job.key_bytes = key_size
        with nogil:
            self.clean()

    cdef uint8_t* answers(self) noexcept nogil:
        return self._answers.pointer()

    cdef int clean(self) except -1 nogil:
        """Make sums and counters zero, as every launch must find them."""
        self._sums.clear(self.stream)
        return self.stream.synchronize()

    cdef int submit(self, Kernel kernel, const uint8_t* keys, size_t key_count, uint8_t* out,
                    double* times) except -1 nogil:
        """Put a chunk into the lane, which must be empty."""
        cdef void* parameters[2]
        cdef double begun = microseconds() if times != NULL else 0
        memcpy(self._keys, keys, key_count * self.job.key_bytes)
        parameters[0] = &self.job
        parameters[1] = self._keys
        if times != NULL:
            self._start.record(self.stream)
        kernel.launch(self.job.tiles * self.job.runs, kBlockThreads, parameters, self.stream)
        self._pending = True
        self._pages = key_count
        self._out = out
        self._times = times
        if times != NULL:
            self._stop.record(self.stream)
            times[SUBMIT] = microseconds() - begun
        return 0

    cdef int settle(self) except -1 nogil:
        """Wait for what is in the lane, and forget it."""
        self._pending = False
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
        self.settle()
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
        return 0
