# Made by tools/release/make_stubs.py from the module's source.
"""Pages laid out for the binary tensor cores, and the launches of wide chunks over them.

They lie beside the plain pages, which other chunks read and of which they are made.
"""

import numpy as np
import numpy.typing as npt

from morphogen.engine.cuda._driver import Context, Module
from morphogen.engine.cuda.device_pages import DevicePages

class BitKernel:
    """A kernel that counts over the pages of a chunk, and the grid of its launches.

    Parameters
    ----------
    context : Context
    module : Module
    keys : int
        The most keys of a chunk.
    groups : int
        Of the pages.
    vectors : int
        Of each page.
    multiprocessors : int
    """

    @property
    def keys(self) -> int: ...
    @property
    def grid(self) -> object: ...
    def __init__(
        self,
        context: Context,
        module: Module,
        keys: int,
        groups: int,
        vectors: int,
        multiprocessors: int,
    ) -> None: ...

class BitPages:
    """Room for the pages of a device, laid out anew, and the kernels over them.

    Parameters
    ----------
    context : Context
    module : Module
        Of page_bits.
    pages : DevicePages
        The plain pages.
    multiprocessors : int
    """

    def __init__(
        self, context: Context, module: Module, pages: DevicePages, multiprocessors: int
    ) -> None: ...
    def renew(self, indices: npt.NDArray[np.int64] | None = None) -> None:
        """Lay out pages again.

        Parameters
        ----------
        indices : numpy.ndarray, optional
            int64, ascending: the plain pages that have changed. By default all.
        """

class BitBuffers:
    """What a chunk takes besides its sums: its keys on the device, and their selection bits.

    Parameters
    ----------
    pages : BitPages
    key_size : int
    """

    def __init__(self, pages: BitPages, key_size: int) -> None: ...

FULL_DEVICE: int

def check_native(ordinal: int, compute_capability: tuple[int, int]) -> None:
    """Refuse a device that has no tensor cores for bits.

    Parameters
    ----------
    ordinal : int
    compute_capability : tuple of int

    Raises
    ------
    DeviceUnavailableError
        If it is of another generation.
    """

def bits_size(num_pages: int, stride: int) -> int:
    """Bytes of device memory that the laid out pages take: as many as plain ones, in whole groups.

    Parameters
    ----------
    num_pages : int
    stride : int
        Bytes of a plain page on the device.
    """

def buffers_size(num_pages: int, stride: int, key_size: int) -> int:
    """Bytes of device memory that the widest chunk's keys, selection bits and sums take."""
