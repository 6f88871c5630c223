# Made by tools/release/make_stubs.py from the module's source.
"""The pages in a device's memory, each padded with zeros to whole vectors of 16 bytes."""

import numpy as np
import numpy.typing as npt

from morphogen.engine.cuda._driver import Context, Kernel
from morphogen.pages import PageMatrix
from morphogen.progress import Progress

class DevicePages:
    """Room for pages. Its bytes are those that the memory had before.

    Parameters
    ----------
    context : Context
    first, num_pages, page_size : int
        The number in the table of the first page, how many follow each other, and their bytes.
    more : int
        Bytes that the caller will need besides.

    Raises
    ------
    DeviceOutOfMemoryError
        If the device has too little free memory for both.
    """

    @property
    def first_leaf(self) -> int: ...
    @property
    def num_pages(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    @property
    def stride(self) -> int: ...
    torn: bool
    def __init__(
        self, context: Context, first: int, num_pages: int, page_size: int, more: int
    ) -> None: ...
    def upload(self, pages: PageMatrix, progress: Progress | None) -> None:
        """Copy all pages to the device.

        Parameters
        ----------
        pages : PageMatrix
        progress : callable or None
            Called with the bytes sent and the bytes in all.
        """
    def replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        """Copy some pages to the device. From the first copy on they are torn: see `Scanner`.

        Parameters
        ----------
        pages : PageMatrix
        indices : numpy.ndarray
            int64, ascending. Neighbours travel together.
        """
    def generate(self, fill: Kernel, blocks: int, seed: int) -> None:
        """Let the device make random pages.

        Parameters
        ----------
        fill : Kernel
            morphogen_fill.
        blocks : int
        seed : int
        """

PIECE_BYTES: int

def padded_size(page_size: int) -> int:
    """Bytes that a page takes on a device."""
