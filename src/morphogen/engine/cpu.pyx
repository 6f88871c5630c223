"""The CPU engine: SIMD scans by a team of threads, one pass over the pages for a whole chunk."""

import operator
import os

from libc.stdint cimport uint8_t

from morphogen.errors import DeviceError
from morphogen.kernels cimport HostKernels, HostScanner, ScanJob
from morphogen.planner cimport KeyPacker

from morphogen.engine.base import Engine

from morphogen cimport instruction_set as _instruction_set

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

# Widest chunk, by measurement (docs/performance.md): up to here a wider pass still costs less a
# query, and its accumulators fit the second-level cache at 4 KiB pages.
MAX_MICRO_BATCH = 32


cdef class Scanner:
    """Owns the threads and the scratch memory of one engine.

    Parameters
    ----------
    instruction_set : str or None
    threads : int
    """

    cdef HostScanner* _scanner
    cdef object _owner
    cdef readonly str instruction_set
    cdef readonly Py_ssize_t threads

    def __cinit__(self, str instruction_set, Py_ssize_t threads):
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
        return 0

    def read(self, const uint8_t[:, ::1] pages):
        """The XOR of all pages as 64-bit words, read as fast as these threads can.

        Parameters
        ----------
        pages : uint8 array of shape (pages, page_size)

        Returns
        -------
        int
        """
        cdef size_t size = pages.shape[0] * pages.shape[1]
        if size == 0:
            return 0
        with nogil:
            total = self._scanner.read(&pages[0, 0], size)
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

    def __init__(self, pages, *, threads=None, instruction_set=None):
        super().__init__(pages, "cpu", MAX_MICRO_BATCH)
        if instruction_set is not None and not isinstance(instruction_set, str):
            raise TypeError(
                f"instruction_set must be a str, not {type(instruction_set).__name__}"
            )
        self._scanner = Scanner(instruction_set, _thread_count(threads))

    @property
    def threads(self):
        """Threads that share a pass, the caller's among them."""
        return self._scanner_or_closed().threads

    @property
    def instruction_set(self):
        """Name of the instruction set in use."""
        return self._scanner_or_closed().instruction_set

    def read_pages(self):
        """Read every page once and do nothing with it: the time a pass cannot beat.

        Returns
        -------
        int
            XOR of all bytes of contiguous pages, as little-endian 64-bit words.
        """
        self._check_owner()
        with self._lock:
            return self._scanner_or_closed().read(self._pages.body)

    def _run(self, ranges, out):
        cdef Scanner scanner = self._scanner
        cdef KeyPacker packer = self._packer
        scanner.answer(packer, ranges, self._pages.body, self._pages.tail, out)

    def _release(self):
        self._scanner = None

    def _scanner_or_closed(self):
        scanner = self._scanner
        if scanner is None:
            from morphogen.errors import EngineClosedError

            raise EngineClosedError("this engine is closed")
        return scanner


def _thread_count(threads):
    if threads is None:
        return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                   else os.cpu_count() or 1)
    try:
        count = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads must be an int, not {type(threads).__name__}") from None
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    if count > PY_SSIZE_T_MAX:
        raise ValueError(f"threads must be at most {PY_SSIZE_T_MAX}, not {count}")
    return count
