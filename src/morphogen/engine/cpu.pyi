# Made by tools/make_stubs.py from the module's source.
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.engine.base import Engine
from morphogen.engine.strategy import Strategy
from morphogen.pages import PageMatrix

MAX_MICRO_BATCH: int
MAX_THREADS: int

class CpuEngine(Engine):
    def __init__(
        self,
        pages: PageMatrix,
        *,
        threads: SupportsIndex | None = None,
        instruction_set: str | None = None,
        read_order: str | None = None,
    ) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def read_order(self) -> str: ...
    def read_pages(self) -> int: ...
    def _run(
        self, ranges: list[tuple[int, int]], out: npt.NDArray[np.uint8], strategy: Strategy
    ) -> None: ...
    def _release(self) -> None: ...
