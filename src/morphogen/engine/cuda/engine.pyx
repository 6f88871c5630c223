"""The GPU engine: one launch of a page kernel for every chunk of queries."""

from dataclasses import replace
from time import perf_counter_ns

import numpy as np

import morphogen.dpf as dpf
from morphogen.checks import as_int, check_range
from morphogen.errors import DeviceError, EngineClosedError
from morphogen.pages import check_pages
from morphogen.planner cimport KeyPacker

from morphogen.engine.cuda.driver_errors import advise_restart
from morphogen.engine.cuda.patch import difference
from morphogen.engine.cuda.phases import ChunkTimes, PhaseTimes
from morphogen.engine.cuda.tuning import tuning_of
from morphogen.engine.cuda.variants import fitting, names
from morphogen.engine.holding import HoldingEngine
from morphogen.engine.layouts import check_layout
from morphogen.engine.strategy import LANE_COUNTS, Choices, Strategy

from morphogen.engine.cuda.lane cimport PHASES, Lane
from morphogen.engine.cuda.patch cimport Patch
from morphogen.engine.cuda.scanner cimport Scanner

# The most queries of a launch unless a caller asks for more. On an H100 an earlier system collapsed
# above it.
MAX_MICRO_BATCH = 2
# The most that can be asked for: with three keys a query, 24 keys.
WIDEST_MICRO_BATCH = 8
# The same where pages are laid out for binary tensor cores: 96 keys.
WIDEST_BITS_MICRO_BATCH = 32
# One chunk runs while the next is put into its lane: the device never waits for the host.
LANES = 2


class CudaEngine(HoldingEngine):
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
    layout : str, optional
        As `morphogen.open_engine` takes it.
    lanes : int, optional
        Chunks under way at a time, of one call or several, unless a call asks for another number:
        1, 2 or 4; by default 2.
    graph : bool, optional
        Whether to launch chunks by replaying a CUDA graph, but those on tensor cores.
    phases : PhaseCounter, optional
        Counts every chunk that `Engine.answer` runs. That takes some microseconds of each.

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
        progress: Progress | None = None, generate: int | None = None, layout: str = "plain",
        lanes: int | None = None, graph: bool = False, phases: PhaseCounter | None = None,
    ) -> None:
        if generate is not None:
            check_range("generate", generate, 0, 2**64 - 1)
        ordinal = as_int("ordinal", ordinal)
        check_range("ordinal", ordinal, 0, 2**31 - 1)
        check_layout(layout)
        choices = Choices(
            device=f"cuda:{ordinal}",
            default=Strategy(MAX_MICRO_BATCH, lanes=LANES, graph=False),
            widest=WIDEST_BITS_MICRO_BATCH if layout == "bits" else WIDEST_MICRO_BATCH,
            lanes=LANE_COUNTS,
            graph=True,
        )
        choices = replace(choices, default=choices.choose(None, lanes, graph))
        lanes = choices.default.lanes
        super().__init__(check_pages(pages).table, choices, pages, max_in_flight=lanes)
        size = dpf.key_size(pages.table.num_pages)
        tuned = dict(tuning_of(ordinal).kernels)
        self._share(Scanner(pages, ordinal, size, lanes, progress, generate, phases, layout, tuned))
        variants = names(fitting(self._scanner.compute_capability))
        self._choices = replace(choices, variants=variants)

    def _share(self, Scanner scanner):
        self._scanner = scanner
        self._patch = None  # the device has this engine's pages
        self._ptx = scanner.ptx
        self._code = scanner.code
        self._grid = scanner.grid
        self._tuned = scanner.tuned
        scanner.share(self)

    @property
    def replicas(self) -> int:
        """1: of the calls that run at a time, the device answers one, and has the next at hand."""
        return 1

    @property
    def ptx(self) -> str:
        """The target of the PTX that the kernels were compiled from: "compute_80"."""
        return self._ptx

    @property
    def code(self) -> str:
        """The code that was loaded: "sm_90", compiled when the package was built, or `ptx`."""
        return self._code

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of its kernels that a caller may ask for."""
        return self._choices.variants

    @property
    def tuned(self) -> dict[int, str]:
        """The variants that it takes by itself, by the most keys of a kernel."""
        return dict(self._tuned)

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

        def run(packer, ranges, out, strategy):
            times = np.empty((len(ranges), PHASES))
            begun.append(perf_counter_ns())
            self._run(packer, ranges, out, strategy, times)
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
        cdef Scanner scanner = _usable(self)
        cdef Patch patch
        with scanner.lanes as lane:
            scanner.check_whole()
            patch = self._patch
            try:
                words = scanner.read(lane)
            except DeviceError as error:
                self._close_if_lost(scanner, error)
                raise
        return words if patch is None else words ^ patch.words()

    def _run(
        self, packer: KeyPacker, ranges: list[tuple[int, int]], out: npt.NDArray[np.uint8],
        strategy: Strategy, times: npt.NDArray[np.float64] | None = None,
    ) -> None:
        cdef Scanner scanner = _usable(self)
        cdef Patch patch
        # `with` looks up two methods, on the way to each launch.
        cdef Lane lane = scanner.lanes.enter()
        try:
            scanner.check_whole()
            # It is that of the pages that the device has now, whatever is replaced afterwards.
            patch = self._patch
            try:
                scanner.answer(lane, packer, ranges, out, strategy, times)
            except DeviceError as error:
                self._close_if_lost(scanner, error)
                raise
        finally:
            scanner.lanes.leave()
        if patch is not None:
            patch.add(packer, out)

    def _replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        cdef Scanner scanner = _usable(self)
        table = pages.table
        with scanner.lanes.alone():
            self._move(scanner, pages, indices, self)
            self._pages, self._table = pages, table

    def _open_next(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> CudaEngine:
        cdef Scanner scanner = _usable(self)
        engine = CudaEngine.__new__(CudaEngine)
        HoldingEngine.__init__(
            engine, pages.table, self._choices, pages, max_in_flight=self.max_in_flight
        )
        with scanner.lanes.alone():
            self._move(scanner, pages, indices, engine)
            engine._share(scanner)
        return engine

    def _move(self, Scanner scanner, pages, indices, engine):
        """Let the device have the pages of an engine, and tell the others what that changes."""
        scanner.check_whole()
        if scanner.generated:
            raise ValueError("pages that the device generated cannot be replaced")
        change = difference(self._pages, pages, indices)
        # What changes on the device, which need not have this engine's pages.
        moved = change if self._patch is None else self._patch.merged(change)
        others = [one for one in scanner.engines() if one is not engine]
        patches = [moved if one._patch is None else one._patch.merged(moved) for one in others]
        try:
            scanner.replace(pages, moved.indices)
        except BaseException as error:
            if scanner.torn:
                reason = f"its device's pages were half replaced: {error}"
                self._close_all(scanner, reason)
                if isinstance(error, DeviceError):
                    raise DeviceError(f"this engine was closed when {reason}") from error
            elif isinstance(error, DeviceError):
                self._close_if_lost(scanner, error)
            raise
        # From here on nothing fails, and no interrupt comes between.
        for one, patch in zip(others, patches):
            one._patch = patch
        engine._patch = None
        scanner.mend()

    def _close_if_lost(self, Scanner scanner, error):
        if scanner.broken:
            self._close_all(scanner, advise_restart(f"its device failed: {error}"))

    def _close_all(self, Scanner scanner, reason):
        """Close all engines that answer from the scanner, of which this thread has a lane."""
        if scanner.failed is None:
            scanner.failed = f"this engine was closed when {reason}"
        for engine in scanner.engines():
            engine._closed = True
            engine._why_closed = scanner.failed
            engine._release()

    def _release(self) -> None:
        self._scanner = None
        self._patch = None


cdef Scanner _usable(engine):
    # Another engine's failure may release it at any time, until the scanner is entered.
    cdef Scanner scanner = engine._scanner
    if scanner is None:
        raise EngineClosedError(engine._why_closed)
    return scanner
