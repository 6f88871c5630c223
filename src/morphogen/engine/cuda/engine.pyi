# Made by tools/release/make_stubs.py from the module's source.
"""The GPU engine: one launch of a page kernel for every chunk of queries."""

import numpy as np
import numpy.typing as npt

from morphogen.engine.cuda.grid import Grid
from morphogen.engine.cuda.phases import PhaseCounter, PhaseTimes
from morphogen.engine.holding import HoldingEngine
from morphogen.engine.strategy import Strategy
from morphogen.pages import PageMatrix
from morphogen.planner import KeyPacker
from morphogen.progress import Progress
from morphogen.query import Answer, Query

MAX_MICRO_BATCH: int
WIDEST_MICRO_BATCH: int
WIDEST_BITS_MICRO_BATCH: int
LANES: int

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
        self,
        pages: PageMatrix,
        ordinal: int = 0,
        *,
        progress: Progress | None = None,
        generate: int | None = None,
        layout: str = "plain",
        lanes: int | None = None,
        graph: bool = False,
        phases: PhaseCounter | None = None,
    ) -> None: ...
    @property
    def replicas(self) -> int:
        """1: of the calls that run at a time, the device answers one, and has the next at hand."""
    @property
    def ptx(self) -> str:
        """The target of the PTX that the kernels were compiled from: "compute_80"."""
    @property
    def code(self) -> str:
        """The code that was loaded: "sm_90", compiled when the package was built, or `ptx`."""
    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of its kernels that a caller may ask for."""
    @property
    def tuned(self) -> dict[int, str]:
        """The variants that it takes by itself, by the most keys of a kernel."""
    @property
    def grid(self) -> Grid:
        """The blocks into which a launch cuts the page matrix."""
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
    def _read(self) -> int: ...
    def _run(
        self,
        packer: KeyPacker,
        ranges: list[tuple[int, int]],
        out: npt.NDArray[np.uint8],
        strategy: Strategy,
        times: npt.NDArray[np.float64] | None = None,
    ) -> None: ...
    def _replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None: ...
    def _open_next(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> CudaEngine: ...
    def _release(self) -> None: ...
