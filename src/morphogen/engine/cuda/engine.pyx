"""The GPU engine: one launch of a page kernel for every chunk of queries."""

from time import perf_counter_ns

import numpy as np

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from morphogen.checks import as_int, check_range
from morphogen.errors import DeviceError, DeviceOutOfMemoryError, DeviceUnavailableError
from morphogen.kernels cimport (
    ReadJob,
    kBlockThreads,
    kMaxChunkKeys,
    kVectorBytes,
)
from morphogen.planner cimport KeyPacker

import morphogen.engine.cuda.ptx as ptx
from morphogen.engine.cuda._driver import device_facts
from morphogen.engine.base import Engine
from morphogen.engine.cuda.device_pages import padded_size
from morphogen.engine.cuda.lane import sums_size
from morphogen.engine.cuda.page_kernel import open_page_kernels
from morphogen.engine.cuda.phases import ChunkTimes, PhaseTimes
from morphogen.engine.strategy import Choices, Strategy

from morphogen.engine.cuda._driver cimport Context, Kernel, Module
from morphogen.engine.cuda.device_pages cimport DevicePages
from morphogen.engine.cuda.lane cimport PHASES, Lane
from morphogen.engine.cuda.page_kernel cimport PageKernel

# The most queries of a launch unless a caller asks for more. On an H100 an earlier system collapsed
# above it.
MAX_MICRO_BATCH = 2
# The most that can be asked for: with three keys a query, 24 keys.
WIDEST_MICRO_BATCH = 8
# One chunk runs while the next is put into its lane: the device never waits for the host.
LANES = 2
# The numbers of lanes that a caller may ask for. Further lanes get buffers at their first use.
LANE_COUNTS = (1, 2, 4)


@cython.final
@cython.no_gc_clear
cdef class _Scanner:
    """Owns the kernels, pages and lanes of one engine on a device.

    Parameters
    ----------
    pages : PageMatrix
    ordinal : int
    key_size : int
    progress, generate
        As `CudaEngine` takes them.
    """

    cdef Context _context
    # Freed in this order: a lane's graph before the module that its kernel is of.
    cdef list _lanes         # LANES of them, and more once a batch asked for more
    cdef list _kernels       # by the number of keys, see open_page_kernels
    cdef Kernel _read
    cdef int _read_blocks
    cdef DevicePages _pages
    cdef size_t _key_size
    cdef unsigned int _tiles  # the most of any kernel
    cdef bint _unclean       # whether a launch may have left sums behind
    cdef readonly bint broken
    cdef readonly object grid
    cdef readonly str ptx
    cdef readonly str code

    def __cinit__(self, pages, int ordinal, size_t key_size, progress, generate):
        self._context = Context(ordinal)
        with self._context:
            self._open(pages, key_size, progress, generate)

    def _open(self, pages, size_t key_size, progress, generate):
        facts = device_facts(self._context.ordinal)
        module = self._load(facts["compute_capability"])
        self._read = Kernel(module, b"morphogen_read")
        self._read_blocks = facts["multiprocessors"] * self._read.resident_blocks(kBlockThreads)
        stride = padded_size(pages.page_size)
        self._kernels = open_page_kernels(
            self._context, module, pages.num_pages, stride, facts["multiprocessors"]
        )
        self.grid = self._kernels[kMaxChunkKeys].grid
        self._tiles = max(kernel.grid.tiles for kernel in self._kernels[1:])
        more = LANES * sums_size(kMaxChunkKeys, stride, self._tiles)
        self._pages = DevicePages(self._context, pages.num_pages, pages.page_size, more)
        self._key_size = key_size
        self._lanes = []
        self._open_lanes(LANES)
        if generate is None:
            self._pages.upload(pages, progress)
        else:
            fill = Kernel(module, b"morphogen_fill")
            self._pages.generate(fill, self._read_blocks, generate)

    def _load(self, compute_capability) -> Module:
        path = ptx.choose(compute_capability)
        if path is None:
            raise DeviceUnavailableError(
                f"no PTX for compute capability {compute_capability} in {ptx.FOLDER}"
            )
        self.ptx = path.stem.partition(".")[2]
        compiled = ptx.choose_compiled(compute_capability)
        if compiled is not None:
            try:
                module = Module(self._context, compiled.read_bytes())
                self.code = compiled.stem.partition(".")[2]
                return module
            except DeviceOutOfMemoryError:
                raise
            except DeviceError:
                # The PTX may do for this driver. If it does not, its error tells more.
                pass
        self.code = self.ptx
        return Module(self._context, path.read_bytes())

    def _open_lanes(self, Py_ssize_t count):
        while len(self._lanes) < count:
            self._lanes.append(
                Lane(self._context, self._pages, self._key_size, kMaxChunkKeys, self._tiles)
            )

    def read(self) -> int:
        cdef Lane lane = self._lanes[0]
        cdef ReadJob job
        cdef void* parameters[1]
        cdef Kernel kernel = self._read
        job.pages = self._pages.address()
        job.vectors = self._pages.num_pages * (self._pages.stride // kVectorBytes)
        # It must find a sum and a counter at zero, and leaves them so: those of a lane's chunks.
        job.sum = <uint64_t*>lane.job.accumulators
        job.finished = lane.job.finished
        job.answer = <uint64_t*>lane.job.answers
        parameters[0] = &job
        with self._context:
            try:
                self._clean()
                with nogil:
                    kernel.launch(self._read_blocks, kBlockThreads, parameters, lane.stream)
                    lane.stream.synchronize()
            except DeviceError:
                self._settle()
                raise
        return (<uint64_t*>lane.answers())[0]

    cdef int answer(self, KeyPacker packer, list ranges, uint8_t[:, :, ::1] out, strategy,
                    double[:, ::1] times) except -1:
        """Answer the packed batch. times: a row for each chunk, or None."""
        cdef Py_ssize_t lanes = min(<Py_ssize_t>strategy.lanes, <Py_ssize_t>len(ranges))
        cdef Py_ssize_t start, stop, chunk = 0
        cdef unsigned int keys
        cdef bint graph = strategy.graph
        cdef Lane lane
        cdef PageKernel kernel
        cdef double* row = NULL
        if not ranges:
            return 0
        self._context.enter()
        try:
            self._prepare(lanes, graph, ranges[0][1] * packer.keys_per_query)
            self._clean()
            for start, stop in ranges:
                lane = self._lanes[chunk % lanes]
                keys = (stop - start) * packer.keys_per_query
                kernel = self._kernels[keys]
                if times is not None:
                    row = &times[chunk, 0]
                with nogil:
                    lane.finish()
                    lane.submit(
                        kernel, packer.chunk_keys(start), keys, &out[start, 0, 0], graph, row
                    )
                chunk += 1
                # A batch of many chunks must heed Ctrl-C.
                PyErr_CheckSignals()
            for chunk in range(chunk, chunk + lanes):
                lane = self._lanes[chunk % lanes]
                with nogil:
                    lane.finish()
        except BaseException:
            self._settle()
            raise
        finally:
            self._context.leave()
        return 0

    cdef int _prepare(self, Py_ssize_t lanes, bint graph, int keys) except -1:
        """Make lanes, room for chunks of so many keys, and graphs, as far as they are missing."""
        cdef Lane lane
        cdef PageKernel kernel = self._kernels[keys]
        self._open_lanes(lanes)
        for lane in self._lanes[:lanes]:
            lane.reserve(kernel.keys)
            if graph:
                lane.open_graph()
        return 0

    cdef int _clean(self) except -1:
        cdef Lane lane
        if self._unclean:
            for lane in self._lanes:
                with nogil:
                    lane.clean()
            self._unclean = False
        return 0

    cdef int _settle(self) except -1:
        """Wait for the lanes after an error, and find out whether the device is lost."""
        cdef Lane lane
        self._unclean = True
        for lane in self._lanes:
            try:
                with nogil:
                    lane.settle()
            except DeviceError:
                self.broken = True
        return 0


class CudaEngine(Engine):
    """Answers on a GPU. Made by `morphogen.open_engine`.

    Parameters
    ----------
    pages : PageMatrix
        The pages to answer from. They are copied to the device.
    ordinal : int, optional
        N of "cuda:N".
    progress : callable, optional
        Called while the pages are uploaded, with the bytes sent and the bytes in all.
    generate : int, optional
        Instead of uploading, let the device make random pages from this seed. For benchmarks:
        the bytes of ``pages`` are not read.

    Raises
    ------
    DeviceUnavailableError
        If the device cannot be used here.
    DeviceOutOfMemoryError
        If the pages do not fit the device.
    DeviceError
        If the device fails.
    TypeError, ValueError
        If an argument has the wrong type or is out of range.
    """

    def __init__(
        self, pages: PageMatrix, ordinal: int = 0, *,
        progress: Progress | None = None, generate: int | None = None,
    ) -> None:
        if generate is not None:
            check_range("generate", generate, 0, 2**64 - 1)
        ordinal = as_int("ordinal", ordinal)
        check_range("ordinal", ordinal, 0, 2**31 - 1)
        choices = Choices(
            device=f"cuda:{ordinal}",
            default=Strategy(MAX_MICRO_BATCH, lanes=LANES, graph=False),
            widest=WIDEST_MICRO_BATCH,
            lanes=LANE_COUNTS,
            graph=True,
        )
        super().__init__(pages, choices)
        self._scanner = _Scanner(pages, ordinal, self._packer.key_size, progress, generate)
        self._ptx = self._scanner.ptx
        self._code = self._scanner.code
        self._grid = self._scanner.grid

    @property
    def ptx(self) -> str:
        """The target of the PTX that the kernels were compiled from: "compute_80"."""
        return self._ptx

    @property
    def code(self) -> str:
        """The code that was loaded: "sm_90", compiled when the package was built, or `ptx`."""
        return self._code

    @property
    def grid(self) -> Grid:
        """The blocks into which a launch cuts the page matrix."""
        return self._grid

    def time_phases(
        self, queries: list[Query], *, max_micro_batch: int | None = None
    ) -> tuple[Answer, PhaseTimes]:
        """Answer a batch, and time its phases.

        Parameters
        ----------
        queries : list of Query
            As for `Engine.answer`.
        max_micro_batch : int, optional
            As for `Engine.answer`.

        Returns
        -------
        tuple of (Answer, PhaseTimes)
            The answer as from `Engine.answer`, and microseconds.

        Raises
        ------
        InvalidKeyError, KeyDomainError, EngineClosedError, DeviceError, TypeError, ValueError
            As from `Engine.answer`.

        Notes
        -----
        One lane does all the work, so that a chunk's time on the device is its own: `Engine.answer`
        keeps two lanes busy, and takes less in all.
        """
        begun = []
        rows = []

        def run(ranges, out, strategy):
            times = np.empty((len(ranges), PHASES))
            begun.append(perf_counter_ns())
            self._run(ranges, out, strategy, times)
            rows.extend(times.tolist())

        called = perf_counter_ns()
        # With more lanes, a chunk would wait on the device for those of the others.
        strategy = self._choices.choose(max_micro_batch, 1, False)
        answer = self._answer(queries, None, strategy, run)
        total = perf_counter_ns() - called
        sizes = answer.micro_batch_sizes
        chunks = tuple(ChunkTimes(size, *row) for size, row in zip(sizes, rows, strict=True))
        return answer, PhaseTimes((begun[0] - called) / 1e3, chunks, total / 1e3)

    def _read(self) -> int:
        try:
            return self._scanner.read()
        except DeviceError as error:
            self._close_if_lost(error)
            raise

    def _run(
        self, ranges: list[tuple[int, int]], out: npt.NDArray[np.uint8], strategy: Strategy,
        times: npt.NDArray[np.float64] | None = None,
    ) -> None:
        cdef _Scanner scanner = self._scanner
        cdef KeyPacker packer = self._packer
        try:
            scanner.answer(packer, ranges, out, strategy, times)
        except DeviceError as error:
            self._close_if_lost(error)
            raise

    def _close_if_lost(self, error):
        # Called with the lock held.
        if self._scanner.broken:
            self._closed = True
            self._why_closed = f"this engine was closed when its device failed: {error}"
            self._release()

    def _replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        raise NotImplementedError("pages on a GPU cannot be replaced yet")

    def _open_next(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> CudaEngine:
        raise NotImplementedError("pages on a GPU cannot be replaced yet")

    def _release(self) -> None:
        self._scanner = None
