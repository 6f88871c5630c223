"""The pages in a device's memory, each padded with zeros to whole vectors of 16 bytes."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from morphogen.errors import DeviceOutOfMemoryError
from morphogen.kernels cimport FillJob, kBlockThreads, kVectorBytes

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
    num_pages, page_size : int
    more : int
        Bytes that the caller will need besides.

    Raises
    ------
    DeviceOutOfMemoryError
        If the device has too little free memory for both.
    """

    def __cinit__(
        self, Context context, uint64_t num_pages, size_t page_size, more: int
    ) -> None:
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
        """Copy pages to the device.

        Parameters
        ----------
        pages : PageMatrix
        progress : callable or None
            Called with the bytes sent and the bytes in all.
        """
        cdef const uint8_t[:, ::1] body = pages.body
        cdef const uint8_t[::1] tail = pages.tail
        cdef const uint8_t* first = &body[0, 0] if body.shape[0] else NULL
        cdef const uint8_t* last = &tail[0] if tail is not None else NULL
        cdef uint64_t body_pages = body.shape[0], offset = 0, total = self._memory.size
        cdef size_t size
        cdef HostMemory piece
        cdef Event sent
        cdef Stream stream = Stream(self._context)
        cdef Py_ssize_t turn = 0
        capacity = min(PIECE_BYTES, total)
        pieces = [HostMemory(self._context, capacity) for _ in range(2 if capacity < total else 1)]
        events = [Event(self._context, False) for _ in pieces]
        try:
            while offset < total:
                piece = pieces[turn % len(pieces)]
                sent = events[turn % len(pieces)]
                size = min(total - offset, piece.size)
                with nogil:
                    if turn >= 2:
                        sent.synchronize()
                    self._copy_padded(piece.pointer(), first, body_pages, last, offset, size)
                    self._memory.copy_from(offset, piece.pointer(), size, stream)
                    sent.record(stream)
                offset += size
                turn += 1
                if progress is not None:
                    progress(offset, total)
                PyErr_CheckSignals()
        finally:
            # Also after an error, the pieces must not be freed while they travel.
            with nogil:
                stream.synchronize()

    cdef void _copy_padded(self, uint8_t* out, const uint8_t* body, uint64_t body_pages,
                           const uint8_t* tail, uint64_t offset, size_t size) noexcept nogil:
        """Write size bytes of the pages as the device has them, from byte offset on."""
        cdef uint64_t page
        cdef size_t column, count
        cdef const uint8_t* source
        while size > 0:
            page = offset // self.stride
            column = offset % self.stride
            if column >= self.page_size:
                count = min(size, self.stride - column)
                memset(out, 0, count)
            else:
                source = body + page * self.page_size if page < body_pages else tail
                if self.stride == self.page_size and page < body_pages:
                    count = min(<uint64_t>size, body_pages * self.stride - offset)
                else:
                    count = min(size, self.page_size - column)
                memcpy(out, source + column, count)
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
