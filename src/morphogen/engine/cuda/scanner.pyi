# Made by tools/release/make_stubs.py from the module's source.
"""What answers from the pages on a device, for the engines that share them."""

import numpy as np
import numpy.typing as npt

from morphogen.engine.base import Engine
from morphogen.engine.locks import CallLock
from morphogen.pages import PageMatrix
from morphogen.progress import Progress

class Scanner:
    """Pages on a device, with all that answers from them, for the engines that share them.

    Parameters
    ----------
    pages : PageMatrix
    ordinal : int
    key_size : int
    lanes : int
        Lanes to open at once.
    progress, generate
        As `CudaEngine` takes them.

    Attributes
    ----------
    lock : CallLock
        One use at a time, of whichever engine. An engine's own lock is taken before it.
    broken : bool
        Whether the device is lost.
    torn : bool
        Whether its pages may be of two epochs.
    failed : str or None
        Why no engine answers from it any more.
    """

    @property
    def lock(self) -> CallLock: ...
    @property
    def generated(self) -> bool: ...
    @property
    def broken(self) -> bool: ...
    @property
    def failed(self) -> object: ...
    @property
    def grid(self) -> object: ...
    @property
    def ptx(self) -> str: ...
    @property
    def code(self) -> str: ...
    def __init__(
        self,
        pages: PageMatrix,
        ordinal: int,
        key_size: int,
        lanes: int,
        progress: Progress | None,
        generate: int | None,
    ) -> None: ...
    def share(self, engine: Engine) -> None:
        """Count an engine in, until it is gone or has released this."""
    def engines(self) -> list[Engine]:
        """The engines that answer from these pages."""
    def replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        """Copy these of the pages to the device, and leave it `torn` until `mend`.

        If this fails before it copies anything, nothing is changed.

        Parameters
        ----------
        pages : PageMatrix
        indices : numpy.ndarray
            int64, ascending.
        """
    def mend(self) -> None:
        """Tell that engines know of the pages that `replace` copied."""
    def read(self) -> int:
        """Read every page once: the XOR of their words."""
