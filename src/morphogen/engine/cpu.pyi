# Made by tools/release/make_stubs.py from the module's source.
"""The CPU engine: SIMD scans by a team of threads, one pass over the pages for a whole chunk."""

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.engine.holding import HoldingEngine
from morphogen.engine.strategy import Strategy
from morphogen.pages import PageMatrix
from morphogen.planner import KeyPacker

MAX_KEYS_PER_QUERY: int
MAX_CHUNK_KEYS: int
MAX_MICRO_BATCH: int
MAX_THREADS: int

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
        self,
        pages: PageMatrix,
        *,
        threads: SupportsIndex | None = None,
        instruction_set: str | None = None,
        read_order: str | None = None,
    ) -> None: ...
    @property
    def threads(self) -> int:
        """Threads that share a pass, the caller's among them."""
    @property
    def instruction_set(self) -> str:
        """Name of the instruction set in use."""
    @property
    def read_order(self) -> str:
        """The order in which a pass reads pages: "rows" or "memory"."""
    @property
    def read_order_source(self) -> str:
        """What decided it: the processor's "make", a "measurement", or the "caller"."""
    def _scratch_bytes(self) -> int: ...
    def _choose_methods(self, whole_vectors: bool) -> None: ...
    def _read(self) -> int: ...
    def _run(
        self,
        packer: KeyPacker,
        ranges: list[tuple[int, int]],
        out: npt.NDArray[np.uint8],
        strategy: Strategy,
    ) -> None: ...
    def _replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None: ...
    def _open_next(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> CpuEngine: ...
    def _release(self) -> None: ...

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
