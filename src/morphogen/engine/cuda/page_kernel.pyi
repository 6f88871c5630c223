# Made by tools/release/make_stubs.py from the module's source.
"""A page kernel answers a chunk of up to so many keys by one launch."""

from morphogen.engine.cuda._driver import Context, Module
from morphogen.engine.cuda.variants import Variant

class PageKernel:
    """A kernel of the package's PTX, and the grid of its launches.

    Parameters
    ----------
    context : Context
    module : Module
    keys : int
        The most keys of a chunk: a kernel is compiled for this number.
    variant : Variant, optional
        The variant to take, which has a kernel for this number; by default none.
    """

    @property
    def keys(self) -> int: ...
    @property
    def grid(self) -> object: ...
    def __init__(
        self, context: Context, module: Module, keys: int, variant: Variant | None = None
    ) -> None: ...
    def cut(self, num_pages: int, stride: int, multiprocessors: int) -> None:
        """Choose the grid of launches over a page matrix.

        Parameters
        ----------
        num_pages : int
        stride : int
            Bytes of a page on the device.
        multiprocessors : int
        """

def open_page_kernels(
    context: Context, module: Module, num_pages: int, stride: int, multiprocessors: int
) -> list[PageKernel | None]:
    """All page kernels of a module, for one page matrix.

    Parameters
    ----------
    context : Context
    module : Module
    num_pages : int
    stride : int
        Bytes of a page on the device.
    multiprocessors : int

    Returns
    -------
    list
        By the number of keys of a chunk, the PageKernel to launch it with, which may be for more;
        None at 0.
    """

def open_variant(
    context: Context,
    module: Module,
    variant: Variant,
    kernels: list[PageKernel | None],
    num_pages: int,
    stride: int,
    multiprocessors: int,
) -> list[PageKernel | None]:
    """The page kernels of a variant, and the default ones for chunks that it does not serve.

    Parameters
    ----------
    context : Context
    module : Module
        That of the variant's source.
    variant : Variant
    kernels : list
        Those of `open_page_kernels`, for the same page matrix.
    num_pages, stride, multiprocessors : int
        As for `open_page_kernels`.

    Returns
    -------
    list
        As from `open_page_kernels`.
    """
