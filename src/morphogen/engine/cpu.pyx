"""The CPU engine: SIMD scans by a team of threads, one pass over the pages for a whole chunk."""

import operator
import os

from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from morphogen.errors import DeviceError
from morphogen.kernels cimport HostKernels, HostScanner, ScanJob
from morphogen.planner cimport KeyPacker

from morphogen.engine.base import Engine

from morphogen cimport instruction_set as _instruction_set


# Widest chunk, by measurement (docs/performance.md): up to here a wider pass still costs less a
# query, and its accumulators fit the second-level cache at 4 KiB pages.
MAX_MICRO_BATCH = 32
MAX_THREADS = 1024


cdef class _Scanner:
    """Owns the threads and the scratch memory of one engine.

    Parameters
    ----------
    instruction_set : str or None
        As `CpuEngine` takes it.
    threads : int
        1 or more.

    Raises
    ------
    DeviceError
        If the operating system refuses to start that many threads.
    """

    cdef HostScanner* _scanner
    cdef object _owner
    cdef readonly str instruction_set
    cdef readonly Py_ssize_t threads

    def __cinit__(self, instruction_set, Py_ssize_t threads):
        cdef const HostKernels* kernels = _instruction_set.select(instruction_set)
        self.instruction_set = (<bytes>kernels.name).decode()
        self.threads = threads
        self._owner = os.getpid()
        try:
            self._scanner = new HostScanner(kernels[0], threads)
        except RuntimeError as error:
            raise DeviceError(f"cannot start {threads} threads: {error}") from None

    def __dealloc__(self):
        # The threads are not in a forked child: there is nothing to join, and what they may have
        # held when the fork came can't be freed.
        if self._scanner != NULL and self._owner == os.getpid():
            del self._scanner

    cdef int answer(self, KeyPacker packer, list ranges, const uint8_t[:, ::1] body,
                    const uint8_t[::1] tail, uint8_t[:, :, ::1] out) except -1:
        cdef ScanJob job
        cdef Py_ssize_t start, stop
        job.key_bytes = packer.key_size
        job.body = NULL
        if body.shape[0]:
            job.body = &body[0, 0]
        job.tail = NULL
        if tail is not None:
            job.tail = &tail[0]
        job.page_count = packer.num_pages
        job.page_size = out.shape[2]
        for start, stop in ranges:
            job.keys = packer.chunk_keys(start)
            job.key_count = (stop - start) * packer.keys_per_query
            with nogil:
                self._scanner.answer(job, &out[start, 0, 0])
            # A batch of many chunks must heed Ctrl-C.
            PyErr_CheckSignals()
        return 0

    cdef uint64_t read(self, const uint8_t[:, ::1] body, const uint8_t[::1] tail) except? 0:
        cdef uint64_t total = 0
        cdef const uint8_t* first
        cdef size_t size = body.shape[0] * body.shape[1]
        if size:
            first = &body[0, 0]
            with nogil:
                total = self._scanner.read(first, size)
        if tail is not None:
            first = &tail[0]
            total ^= self._scanner.read(first, tail.shape[0])
        return total


class CpuEngine(Engine):
    """Answers on the CPU. Made by `morphogen.open_engine`.

    Parameters
    ----------
    pages : PageMatrix
    threads : int, optional
        Threads that share a pass, 1 or more; by default one for each core this process may use.
    instruction_set : str, optional
        One of ``morphogen.instruction_set.supported()``; by default the widest.
    """

    def __init__(
        self, pages: PageMatrix, *, threads: SupportsIndex | None = None,
        instruction_set: str | None = None,
    ) -> None:
        super().__init__(pages, "cpu", MAX_MICRO_BATCH)
        self._scanner = _Scanner(instruction_set, _thread_count(threads))

    @property
    def threads(self) -> int:
        """Threads that share a pass, the caller's among them."""
        with self._working():
            return self._scanner.threads

    @property
    def instruction_set(self) -> str:
        """Name of the instruction set in use."""
        with self._working():
            return self._scanner.instruction_set

    def read_pages(self) -> int:
        cdef _Scanner scanner
        with self._working():
            scanner = self._scanner
            return scanner.read(self._pages.body, self._pages.tail)

    def _run(self, ranges: list[tuple[int, int]], out: npt.NDArray[np.uint8]) -> None:
        cdef _Scanner scanner = self._scanner
        cdef KeyPacker packer = self._packer
        scanner.answer(packer, ranges, self._pages.body, self._pages.tail, out)

    def _release(self) -> None:
        self._scanner = None


def _thread_count(threads):
    if threads is None:
        # Of the cores of the machine, those that this process may use.
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        count = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads must be an int, not {type(threads).__name__}") from None
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"threads must be in 1..{MAX_THREADS}, not {count}")
    return count
