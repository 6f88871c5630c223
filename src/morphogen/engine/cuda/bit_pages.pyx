"""Pages laid out for the binary tensor cores, and the launches of wide chunks over them.

They lie beside the plain pages, which other chunks read and of which they are made.
"""

import numpy as np

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from morphogen.errors import DeviceUnavailableError
from morphogen.kernels cimport (
    BitJob,
    BitShape,
    ChunkJob,
    TransposeJob,
    bit_shape,
    kBitKernels,
    kBitKeys,
    kExpandThreads,
    kGroupBytes,
    kGroupPages,
    kLeafBits,
    kLeafGroups,
    kTransposeThreads,
    kVectorBytes,
    kWidestBitKeys,
    tile_vectors,
)

from morphogen.engine.cuda.grid import plan_grid

from morphogen.engine.cuda._driver cimport Context, DeviceMemory, HostMemory, Kernel, Module, Stream
from morphogen.engine.cuda.device_pages cimport DevicePages

# Compute capabilities whose tensor cores multiply bits; others would take many instructions for it.
NATIVE = (8, 9)
# From so many leaves of all keys on, a thread expands 2^3 of them instead of one: enough threads
# are left to fill a device, and at 16.8 million pages a leaf takes 5.5 blocks of the PRG, not 16.
FULL_DEVICE = 1 << 17
cdef enum:
    LOG_LEAVES = 3


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
    if compute_capability[0] not in NATIVE:
        major, minor = compute_capability
        raise DeviceUnavailableError(
            f"layout='bits' needs a GPU of compute capability 8 or 9, and cuda:{ordinal} has "
            f"{major}.{minor}: open it with layout='plain'"
        )


def bits_size(num_pages: int, stride: int) -> int:
    """Bytes of device memory that the laid out pages take: as many as plain ones, in whole groups.

    Parameters
    ----------
    num_pages : int
    stride : int
        Bytes of a plain page on the device.
    """
    return -(-num_pages // kGroupPages) * kGroupPages * stride


def buffers_size(num_pages: int, stride: int, key_size: int) -> int:
    """Bytes of device memory that the widest chunk's keys, selection bits and sums take."""
    leaves = -(-num_pages // kLeafBits)
    return kWidestBitKeys * (key_size + leaves * kLeafGroups * kGroupBytes + stride)


@cython.final
cdef class BitKernel:
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

    def __cinit__(
        self, Context context, Module module, int keys, groups: int, vectors: int,
        multiprocessors: int,
    ) -> None:
        cdef BitShape shape = bit_shape(keys)
        self.keys = keys
        self.threads = shape.threads
        self.kernel = Kernel(module, b"morphogen_bits_%d" % keys)
        resident = self.kernel.resident_blocks(self.threads)
        if resident < 1:
            raise DeviceUnavailableError(
                f"a multiprocessor of cuda:{context.ordinal} cannot hold a block of "
                f"{self.threads} threads"
            )
        widest = tile_vectors(shape)
        grid = plan_grid(groups, vectors, widest, multiprocessors * resident, least_run=1)
        self.grid = grid
        self.blocks = grid.blocks
        self._shape.groups_per_run = groups // grid.runs
        self._shape.longer_runs = groups % grid.runs
        self._shape.runs = grid.runs
        self._shape.tiles = grid.tiles
        self._shape.tile_vectors = grid.tile_vectors
        self._shape.vectors = vectors

    cdef void shape(self, BitJob* job) noexcept nogil:
        """Write the grid into a job."""
        job.groups_per_run = self._shape.groups_per_run
        job.longer_runs = self._shape.longer_runs
        job.runs = self._shape.runs
        job.tiles = self._shape.tiles
        job.tile_vectors = self._shape.tile_vectors
        job.vectors = self._shape.vectors


@cython.final
@cython.no_gc
cdef class BitPages:
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

    def __cinit__(
        self, Context context, Module module, DevicePages pages, multiprocessors: int
    ) -> None:
        cdef int i
        self._context = context
        self._module = module
        self._pages = pages
        self.groups = (pages.num_pages + kGroupPages - 1) // kGroupPages
        self.leaves = (pages.num_pages + kLeafBits - 1) // kLeafBits
        vectors = pages.stride // kVectorBytes
        self._kernels = [
            BitKernel(context, module, kBitKeys[i], self.groups, vectors, multiprocessors)
            for i in range(kBitKernels)
        ]
        self.tiles = max(kernel.grid.tiles for kernel in self._kernels)
        self._transpose = Kernel(module, b"morphogen_transpose")
        self.expand = Kernel(module, b"morphogen_expand")
        self._blocks = multiprocessors * self._transpose.resident_blocks(kTransposeThreads)
        self._memory = DeviceMemory(context, bits_size(pages.num_pages, pages.stride))

    cdef BitKernel kernel_for(self, int keys):
        """The kernel of a chunk of so many keys."""
        cdef BitKernel kernel
        for kernel in self._kernels:
            if kernel.keys >= keys:
                return kernel
        return None

    def renew(self, indices: npt.NDArray[np.int64] | None = None) -> None:
        """Lay out pages again.

        Parameters
        ----------
        indices : numpy.ndarray, optional
            int64, ascending: the plain pages that have changed. By default all.
        """
        cdef TransposeJob job
        cdef void* parameters[1]
        cdef Stream stream = Stream(self._context)
        if indices is None:
            runs = [(0, self.groups)]
        else:
            groups = np.unique(indices // kGroupPages)
            starts = np.flatnonzero(np.diff(groups, prepend=-2) != 1)
            counts = np.diff(starts, append=len(groups))
            runs = zip(groups[starts].tolist(), counts.tolist())
        job.pages = self._pages.address()
        job.bit_pages = self._memory.address()
        job.num_pages = self._pages.num_pages
        job.vectors = self._pages.stride // kVectorBytes
        parameters[0] = &job
        try:
            for job.first_group, job.groups in runs:
                with nogil:
                    self._transpose.launch(self._blocks, kTransposeThreads, parameters, stream)
        finally:
            with nogil:
                stream.synchronize()


@cython.final
@cython.no_gc
cdef class BitBuffers:
    """What a chunk takes besides its sums: its keys on the device, and their selection bits.

    Parameters
    ----------
    pages : BitPages
    key_size : int
    """

    def __cinit__(self, BitPages pages, size_t key_size) -> None:
        self._pages = pages
        self._expand.first_leaf = pages._pages.first_leaf
        self._expand.leaves = pages.leaves
        self._expand.key_bytes = key_size
        self._job.bit_pages = pages._memory.address()
        self._full_device = FULL_DEVICE

    cdef int reserve(self, Context context, BitKernel kernel, Stream stream) except -1:
        """Make room for the chunks of a kernel. No launch may be under way."""
        cdef size_t keys
        cdef HostMemory host_keys
        cdef DeviceMemory device_keys, selection
        if kernel.keys <= self._capacity:
            return 0
        keys = kernel.keys * <size_t>self._expand.key_bytes
        host_keys = HostMemory(context, keys)
        device_keys = DeviceMemory(context, keys)
        selection = DeviceMemory(
            context, kernel.keys * self._pages.leaves * kLeafGroups * kGroupBytes
        )
        with nogil:
            selection.clear(stream)  # missing keys have bits, too
            stream.synchronize()
        self._host_keys, self._keys, self._selection = host_keys, device_keys, selection
        self._capacity = kernel.keys
        self._expand.packed_keys = device_keys.address()
        self._expand.selection = selection.address()
        self._job.selection = selection.address()
        return 0

    cdef int launch(self, BitKernel kernel, const uint8_t* keys, unsigned int key_count,
                    const ChunkJob* sums, Stream stream) except -1 nogil:
        """Put a chunk's launches into a stream, in which none is under way."""
        cdef void* parameters[1]
        cdef size_t size = key_count * <size_t>self._expand.key_bytes
        cdef uint64_t first = self._expand.first_leaf, nodes
        cdef unsigned int log_leaves = 0
        memcpy(self._host_keys.pointer(), keys, size)
        self._keys.copy_from(0, self._host_keys.pointer(), size, stream)
        if self._expand.leaves * key_count >= self._full_device:
            log_leaves = LOG_LEAVES
        nodes = ((first + self._expand.leaves - 1) >> log_leaves) - (first >> log_leaves) + 1
        self._expand.keys = key_count
        self._expand.key_slots = kernel.keys
        self._expand.key_blocks = <unsigned int>((nodes + kExpandThreads - 1) // kExpandThreads)
        self._expand.log_leaves = log_leaves
        parameters[0] = &self._expand
        self._pages.expand.launch(
            key_count * self._expand.key_blocks, kExpandThreads, parameters, stream
        )
        kernel.shape(&self._job)
        self._job.accumulators = sums.accumulators
        self._job.finished = sums.finished
        self._job.answers = sums.answers
        self._job.keys = key_count
        parameters[0] = &self._job
        kernel.kernel.launch(kernel.blocks, kernel.threads, parameters, stream)
        return 0
