# Made by tools/release/make_stubs.py from the module's source.
"""What answers from the pages on a device, for the engines that share them."""

import numpy as np
import numpy.typing as npt

from morphogen.engine.base import Engine
from morphogen.engine.calls import Calls
from morphogen.engine.cuda.phases import PhaseCounter
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
    progress, generate, phases, layout
        As `CudaEngine` takes them.
    tuned : dict
        By the most keys of a kernel, the variant to take in its place unless one is asked for.

    Attributes
    ----------
    lanes : Calls
        The uses, of whichever engine: each that answers has a lane, a change of the pages is alone.
        An engine's own place is taken before.
    broken : bool
        Whether the device is lost.
    torn : bool
        Whether its pages may be of two epochs.
    failed : str or None
        Why no engine answers from it any more.
    """

    @property
    def lanes(self) -> Calls: ...
    @property
    def tuned(self) -> object: ...
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
        phases: PhaseCounter | None,
        layout: str,
        tuned: dict[int, str],
    ) -> None: ...
    def share(self, engine: Engine) -> None:
        """Count an engine in, until it is gone or has released this."""
    def engines(self) -> list[Engine]:
        """The engines that answer from these pages."""
    def replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        """Copy these of the pages to the device, alone, and leave it `torn` until `mend`.

        If this fails before it copies anything, nothing is changed.

        Parameters
        ----------
        pages : PageMatrix
        indices : numpy.ndarray
            int64, ascending.
        """
    def mend(self) -> None:
        """Tell that engines know of the pages that `replace` copied."""
