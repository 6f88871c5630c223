"""A page kernel answers a chunk of up to so many keys by one launch."""

cimport cython

from morphogen.errors import DeviceUnavailableError
from morphogen.kernels cimport (
    BlockShape,
    ChunkJob,
    block_shape,
    kMaxChunkKeys,
    kVectorBytes,
    kWideChunkKeys,
    kWidestChunkKeys,
)

from morphogen.engine.cuda.grid import plan_grid
from morphogen.engine.cuda.variants import Variant

from morphogen.engine.cuda._driver cimport Context, Kernel, Module


@cython.final
cdef class PageKernel:
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

    def __cinit__(
        self, Context context, Module module, int keys, variant: Variant | None = None
    ) -> None:
        cdef BlockShape shape = block_shape(keys)
        self.keys = keys
        self.threads = shape.threads
        self._tile_vectors = shape.tile_vectors
        name = f"morphogen_scan_{keys}"
        if variant is None:
            self.kernel = Kernel(module, name.encode())
        else:
            self.threads = variant.block_threads(keys, shape.threads)
            self.kernel = Kernel(
                module, f"{name}_{variant.name}".encode(), variant.dynamic_shared
            )
        # Asked now, since a driver may load a kernel when it is first touched: not in a query.
        self._resident = self.kernel.resident_blocks(self.threads)
        if self._resident < 1:
            raise DeviceUnavailableError(
                f"a multiprocessor of cuda:{context.ordinal} cannot hold a block of "
                f"{self.threads} threads"
            )

    def cut(self, num_pages: int, stride: int, multiprocessors: int) -> None:
        """Choose the grid of launches over a page matrix.

        Parameters
        ----------
        num_pages : int
        stride : int
            Bytes of a page on the device.
        multiprocessors : int
        """
        cdef int vectors = stride // kVectorBytes
        grid = plan_grid(
            num_pages, vectors, self._tile_vectors, multiprocessors * self._resident
        )
        self.grid = grid
        self.blocks = grid.blocks
        self._shape.pages_per_run = num_pages // grid.runs
        self._shape.longer_runs = num_pages % grid.runs
        self._shape.runs = grid.runs
        self._shape.tiles = grid.tiles
        self._shape.tile_vectors = grid.tile_vectors

    cdef void shape(self, ChunkJob* job) noexcept nogil:
        """Write the grid into a job."""
        job.pages_per_run = self._shape.pages_per_run
        job.longer_runs = self._shape.longer_runs
        job.runs = self._shape.runs
        job.tiles = self._shape.tiles
        job.tile_vectors = self._shape.tile_vectors


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
    sizes = [*range(1, kMaxChunkKeys + 1), kWideChunkKeys, kWidestChunkKeys]
    kernels = [None]
    for size in sizes:
        kernel = PageKernel(context, module, size)
        kernel.cut(num_pages, stride, multiprocessors)
        kernels += [kernel] * (size + 1 - len(kernels))
    return kernels


def open_variant(
    context: Context, module: Module, variant: Variant, kernels: list[PageKernel | None],
    num_pages: int, stride: int, multiprocessors: int,
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
    own = {size: PageKernel(context, module, size, variant) for size in variant.keys}
    for kernel in own.values():
        kernel.cut(num_pages, stride, multiprocessors)
    return [None, *(own.get((<PageKernel>kernel).keys, kernel) for kernel in kernels[1:])]
