"""The pages in a device's memory, each padded with zeros to whole vectors of 16 bytes."""

import numpy as np

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from morphogen.errors import DeviceOutOfMemoryError
from morphogen.kernels cimport FillJob, kBlockThreads, kLeafBits, kVectorBytes

from morphogen.engine.cuda._driver cimport Context, DeviceMemory, Event, HostMemory, Kernel, Stream

# While one piece travels, the next is copied into memory that the device can reach.
PIECE_BYTES = 16 << 20


def padded_size(page_size: int) -> int:
    """Bytes that a page takes on a device."""
    return -(-page_size // kVectorBytes) * kVectorBytes


@cython.final
@cython.no_gc
cdef class DevicePages:
    """Room for pages. Its bytes are those that the memory had before.

    Parameters
    ----------
    context : Context
    first, num_pages, page_size : int
        The number in the table of the first page, how many follow each other, and their bytes.
    more : int
        Bytes that the caller will need besides.

    Raises
    ------
    DeviceOutOfMemoryError
        If the device has too little free memory for both.
    """

    def __cinit__(
        self, Context context, uint64_t first, uint64_t num_pages, size_t page_size, more: int
    ) -> None:
        self.first_leaf = first // kLeafBits
        self.num_pages = num_pages
        self.page_size = page_size
        self.stride = padded_size(page_size)
        self._context = context
        total = int(num_pages) * int(self.stride)
        free = context.free_memory()
        if total + more > free:
            raise DeviceOutOfMemoryError(
                f"{num_pages} pages of {page_size} bytes need {total + more} bytes of memory on "
                f"cuda:{context.ordinal}, and {free} are free"
            )
        self._memory = DeviceMemory(context, total)

    cdef void* address(self) noexcept nogil:
        return self._memory.address()

    def upload(self, pages: PageMatrix, progress: Progress | None) -> None:
        """Copy all pages to the device.

        Parameters
        ----------
        pages : PageMatrix
        progress : callable or None
            Called with the bytes sent and the bytes in all.
        """
        everything = np.array([[0, self.num_pages - 1]], dtype=np.int64)
        self._copy(pages, everything, progress, heed_signals=True)
        self.torn = False

    def replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        """Copy some pages to the device. From the first copy on they are torn: see `Scanner`.

        Parameters
        ----------
        pages : PageMatrix
        indices : numpy.ndarray
            int64, ascending. Neighbours travel together.
        """
        if not len(indices):
            return
        gaps = np.flatnonzero(np.diff(indices) != 1)
        runs = np.empty((len(gaps) + 1, 2), dtype=np.int64)
        runs[0, 0], runs[len(gaps), 1] = indices[0], indices[len(indices) - 1]
        runs[1:, 0], runs[:-1, 1] = indices[gaps + 1], indices[gaps]
        # An interrupt would leave pages of two epochs behind.
        self._copy(pages, runs, None, heed_signals=False)

    def _copy(self, pages, runs, progress, *, bint heed_signals):
        cdef const uint8_t[:, ::1] body = pages.body
        cdef const uint8_t[::1] tail = pages.tail
        cdef const int64_t[:, ::1] rows = runs
        cdef Source source
        cdef uint64_t sent = 0, total = self.stride * int((runs[:, 1] - runs[:, 0] + 1).sum())
        cdef HostMemory piece
        cdef Event gone
        cdef Stream stream = Stream(self._context)
        cdef Py_ssize_t turn = 0
        source.body = &body[0, 0] if body.shape[0] else NULL
        source.body_pages = body.shape[0]
        source.tail = &tail[0] if tail is not None else NULL
        source.runs = &rows[0, 0]
        source.left = rows.shape[0]
        source.offset = self.stride * rows[0, 0]
        capacity = min(PIECE_BYTES, total)
        pieces = [HostMemory(self._context, capacity) for _ in range(2 if capacity < total else 1)]
        events = [Event(self._context, False) for _ in pieces]
        self.torn = True
        try:
            while sent < total:
                piece = pieces[turn % len(pieces)]
                gone = events[turn % len(pieces)]
                with nogil:
                    if turn >= 2:
                        gone.synchronize()
                    sent += self._send(piece, stream, &source)
                    gone.record(stream)
                turn += 1
                if progress is not None:
                    progress(sent, total)
                if heed_signals:
                    PyErr_CheckSignals()
        finally:
            # Also after an error, the pieces must not be freed while they travel.
            with nogil:
                stream.synchronize()

    cdef size_t _send(self, HostMemory piece, Stream stream, Source* source) except 0 nogil:
        """Copy what follows to the device, as much as a piece takes. Returns its bytes."""
        cdef size_t used = 0, size
        cdef uint64_t end
        while source.left > 0 and used < piece.size:
            end = self.stride * (source.runs[1] + 1)
            size = min(end - source.offset, <uint64_t>(piece.size - used))
            self._copy_padded(piece.pointer() + used, source, source.offset, size)
            self._memory.copy_from(source.offset, piece.pointer() + used, size, stream)
            used += size
            source.offset += size
            if source.offset == end:
                source.left -= 1
                source.runs += 2
                if source.left > 0:
                    source.offset = self.stride * source.runs[0]
        return used

    cdef void _copy_padded(self, uint8_t* out, const Source* source, uint64_t offset,
                           size_t size) noexcept nogil:
        """Write size bytes of the pages as the device has them, from byte offset on."""
        cdef uint64_t page
        cdef size_t column, count
        cdef const uint8_t* data
        while size > 0:
            page = offset // self.stride
            column = offset % self.stride
            if column >= self.page_size:
                count = min(size, self.stride - column)
                memset(out, 0, count)
            else:
                if page < source.body_pages:
                    data = source.body + page * self.page_size
                else:
                    data = source.tail
                if self.stride == self.page_size and page < source.body_pages:
                    count = min(<uint64_t>size, source.body_pages * self.stride - offset)
                else:
                    count = min(size, self.page_size - column)
                memcpy(out, data + column, count)
            out += count
            offset += count
            size -= count

    def generate(self, fill: Kernel, blocks: int, seed: int) -> None:
        """Let the device make random pages.

        Parameters
        ----------
        fill : Kernel
            morphogen_fill.
        blocks : int
        seed : int
        """
        cdef FillJob job
        cdef void* parameters[1]
        cdef Kernel kernel = fill
        cdef unsigned int grid = blocks
        cdef Stream stream = Stream(self._context)
        job.pages = <uint64_t*>self._memory.address()
        job.words = self._memory.size // sizeof(uint64_t)
        job.page_words = self.stride // sizeof(uint64_t)
        job.page_bytes = self.page_size
        job.seed = seed
        parameters[0] = &job
        with nogil:
            kernel.launch(grid, kBlockThreads, parameters, stream)
            stream.synchronize()
