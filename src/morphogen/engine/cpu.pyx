"""The CPU engine: SIMD scans by a team of threads, one pass over the pages for a whole chunk."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t
from posix.unistd cimport getpid, pid_t

from morphogen.checks import as_int, check_range
from morphogen.errors import DeviceError
from morphogen.pages import check_pages
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.kernels cimport (
    HostKernels,
    HostScanner,
    ReadOrder,
    ReadOrderChoice,
    ScanJob,
    kLeafBits,
    preferred_read_order,
    takes_whole_vectors,
)
from morphogen.kernels cimport measure_read_order as _measure_read_order
from morphogen.planner cimport KeyPacker

from morphogen.engine.cores import usable_cores
from morphogen.engine.holding import HoldingEngine
from morphogen.engine.strategy import Choices, Strategy

cimport morphogen.instruction_set as _instruction_set


# Keys of the widest chunk, by measurement (docs/performance.md): up to here a wider pass costs less
# a key at all page sizes, and its sums fit the second-level cache at 4 KiB pages.
MAX_CHUNK_KEYS = 96
MAX_MICRO_BATCH = MAX_CHUNK_KEYS // MAX_KEYS_PER_QUERY
MAX_THREADS = 1024
READ_ORDERS = ("memory", "rows")


@cython.final
cdef class _Scanner:
    """Owns the threads and the scratch memory of one engine, and holds on to its pages.

    Parameters
    ----------
    pages : PageMatrix
    instruction_set : str or None
        As `CpuEngine` takes it.
    threads : int
        1 or more.
    read_order : str or None
        As `CpuEngine` takes it.

    Raises
    ------
    DeviceError
        If the operating system refuses to start that many threads.
    """

    cdef HostScanner* _scanner
    cdef pid_t _owner
    cdef const uint8_t[:, ::1] _body
    cdef const uint8_t[::1] _tail
    cdef readonly str instruction_set
    cdef readonly Py_ssize_t threads
    cdef bint _mapped
    cdef uint64_t _first_leaf
    cdef uint64_t _page_count
    cdef readonly str read_order_source
    cdef ReadOrder _read_order
    cdef public bint whole_vectors

    def __cinit__(self, pages, instruction_set, Py_ssize_t threads, read_order):
        cdef const HostKernels* kernels = _instruction_set.select(instruction_set)
        cdef ReadOrderChoice choice
        self.hold(pages)
        self.instruction_set = (<bytes>kernels.name).decode()
        self.threads = threads
        self.whole_vectors = takes_whole_vectors()
        if read_order is None:
            choice = preferred_read_order(kernels[0])
            self._read_order = choice.order
            self.read_order_source = "measurement" if choice.measured else "make"
        else:
            self._read_order = ReadOrder.rows if read_order == "rows" else ReadOrder.memory
            self.read_order_source = "caller"
        self._owner = getpid()
        try:
            self._scanner = new HostScanner(kernels[0], threads)
        except RuntimeError as error:
            raise DeviceError(f"cannot start {threads} threads: {error}") from None

    cdef int hold(self, pages) except -1:
        """Read these pages from now on."""
        cdef const uint8_t[:, ::1] body = pages.body
        cdef const uint8_t[::1] tail = pages.tail
        cdef bint mapped = pages.mapped
        cdef uint64_t first_leaf = pages.first // kLeafBits, page_count = pages.num_pages
        self._first_leaf = first_leaf
        self._page_count = page_count
        self._body = body
        self._tail = tail
        self._mapped = mapped
        return 0

    def __dealloc__(self):
        # A forked child has none of the threads to join, and cannot free memory that a thread held
        # at the fork.
        if self._scanner != NULL and self._owner == getpid():
            del self._scanner

    cdef int answer(self, KeyPacker packer, list ranges, uint8_t[:, :, ::1] out) except -1:
        cdef ScanJob job
        cdef Py_ssize_t start, stop
        cdef uint8_t* pages
        job.key_bytes = packer.key_size
        job.body = self._body_start()
        job.tail = self._tail_start()
        job.first_leaf = self._first_leaf
        job.page_count = self._page_count
        job.page_size = out.shape[2]
        job.read_order = self._read_order
        job.whole_vectors = self.whole_vectors
        job.body_is_mapped = self._mapped
        for start, stop in ranges:
            job.keys = packer.chunk_keys(start)
            job.key_count = (stop - start) * packer.keys_per_query
            pages = &out[start, 0, 0]
            with nogil:
                self._scanner.answer(job, pages)
            # A batch of many chunks must heed Ctrl-C.
            PyErr_CheckSignals()
        return 0

    def scratch_bytes(self) -> int:
        return self._scanner.scratch_bytes()

    @property
    def read_order(self) -> str:
        return _order_name(self._read_order)

    cdef uint64_t read(self) except? 0:
        cdef uint64_t total = 0
        cdef const uint8_t* body = self._body_start()
        cdef const uint8_t* tail = self._tail_start()
        with nogil:
            if body != NULL:
                total = self._scanner.read(body, self._body.shape[0] * self._body.shape[1])
            if tail != NULL:
                total ^= self._scanner.read(tail, self._tail.shape[0])
        return total

    cdef const uint8_t* _body_start(self) noexcept:
        # A file shorter than one page has a tail only.
        if self._body.shape[0] == 0:
            return NULL
        return &self._body[0, 0]

    cdef const uint8_t* _tail_start(self) noexcept:
        if self._tail is None:
            return NULL
        return &self._tail[0]


class CpuEngine(HoldingEngine):
    """Answers on the CPU. Made by `morphogen.open_engine`.

    Parameters
    ----------
    pages : PageMatrix
        The pages to answer from.
    threads : int, optional
        Threads that share a pass, 1 or more; by default one for each core this process may use.
    instruction_set : str, optional
        One of ``morphogen.instruction_set.supported()``; by default the widest.
    read_order : str, optional
        "rows": several pages are read side by side, which Intel's processors follow by themselves;
        "memory": one after the other, asked for far ahead by software. By default the one that
        was faster on processors of this make; for other makes than Intel and AMD a process's first
        engine measures it, which takes some milliseconds. Answers are the same.

    Raises
    ------
    DeviceError
        If the operating system refuses to start that many threads.
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Notes
    -----
    The method by which a pass adds pages up depends on the number of keys, the page size and the
    instruction set: docs/engines.md describes all methods.
    """

    def __init__(
        self, pages: PageMatrix, *, threads: SupportsIndex | None = None,
        instruction_set: str | None = None, read_order: str | None = None,
    ) -> None:
        default = Strategy(MAX_MICRO_BATCH, lanes=1, graph=False, keys=MAX_CHUNK_KEYS)
        choices = Choices("cpu", default, widest=MAX_MICRO_BATCH)
        super().__init__(check_pages(pages).table, choices, pages)
        if read_order is not None and not isinstance(read_order, str):
            raise TypeError(f"read_order must be a str, not {type(read_order).__name__}")
        if read_order not in (None, *READ_ORDERS):
            raise ValueError(f"read_order must be one of {READ_ORDERS}, not {read_order!r}")
        self._scanner = _Scanner(
            pages, instruction_set, _thread_count(threads), read_order
        )
        self._threads = self._scanner.threads
        self._instruction_set = self._scanner.instruction_set
        self._read_order = self._scanner.read_order
        self._read_order_source = self._scanner.read_order_source

    @property
    def threads(self) -> int:
        """Threads that share a pass, the caller's among them."""
        return self._threads

    @property
    def instruction_set(self) -> str:
        """Name of the instruction set in use."""
        return self._instruction_set

    @property
    def read_order(self) -> str:
        """The order in which a pass reads pages: "rows" or "memory"."""
        return self._read_order

    @property
    def read_order_source(self) -> str:
        """What decided it: the processor's "make", a "measurement", or the "caller"."""
        return self._read_order_source

    def _scratch_bytes(self) -> int:
        # What passes have allocated for all threads; tests hold it to its limit.
        return self._scanner.scratch_bytes()

    def _choose_methods(self, whole_vectors: bool) -> None:
        # Choose methods as if the processor took vectors in one piece, or by halves. Tests see
        # those of every processor so.
        cdef _Scanner scanner = self._scanner
        scanner.whole_vectors = whole_vectors

    def _read(self) -> int:
        cdef _Scanner scanner = self._scanner
        return scanner.read()

    def _run(
        self, packer: KeyPacker, ranges: list[tuple[int, int]], out: npt.NDArray[np.uint8],
        strategy: Strategy,
    ) -> None:
        cdef _Scanner scanner = self._scanner
        scanner.answer(packer, ranges, out)

    def _replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        cdef _Scanner scanner = self._scanner
        table = pages.table
        scanner.hold(pages)
        self._pages, self._table = pages, table

    def _open_next(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> CpuEngine:
        by_caller = self._read_order_source == "caller"
        return CpuEngine(
            pages, threads=self._threads, instruction_set=self._instruction_set,
            read_order=self._read_order if by_caller else None,
        )

    def _release(self) -> None:
        self._scanner = None


def measure_read_order(instruction_set: str | None = None) -> str:
    """Measure the order in which passes read pages faster on this machine.

    It takes some milliseconds. Where other programs use the memory, the result may vary.

    Parameters
    ----------
    instruction_set : str, optional
        As `CpuEngine` takes it.

    Returns
    -------
    str
        "rows" or "memory".

    Raises
    ------
    TypeError, ValueError
        If the machine has no such instruction set.
    """
    return _order_name(_measure_read_order(_instruction_set.select(instruction_set)[0]))


cdef str _order_name(ReadOrder order):
    return "rows" if order == ReadOrder.rows else "memory"


def _thread_count(threads):
    if threads is None:
        return min(usable_cores().count, MAX_THREADS)
    count = as_int("threads", threads)
    check_range("threads", count, 1, MAX_THREADS)
    return count
