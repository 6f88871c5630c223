# Made by tools/make_stubs.py from the module's source.
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from morphogen.engine.base import Engine
from morphogen.engine.grid import Grid
from morphogen.engine.phases import PhaseTimes
from morphogen.engine.strategy import Strategy
from morphogen.pages import PageMatrix
from morphogen.query import Answer, Query

MAX_MICRO_BATCH: int
WIDEST_MICRO_BATCH: int
LANES: int

class CudaEngine(Engine):
    def __init__(
        self,
        pages: PageMatrix,
        ordinal: int = 0,
        *,
        progress: Callable[[int, int], object] | None = None,
        generate: int | None = None,
    ) -> None: ...
    @property
    def ptx(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def grid(self) -> Grid: ...
    def read_pages(self) -> int: ...
    def time_phases(
        self, queries: list[Query], *, max_micro_batch: int | None = None
    ) -> tuple[Answer, PhaseTimes]: ...
    def _run(
        self,
        ranges: list[tuple[int, int]],
        out: npt.NDArray[np.uint8],
        strategy: Strategy,
        times: npt.NDArray[np.float64] | None = None,
    ) -> None: ...
    def _release(self) -> None: ...
