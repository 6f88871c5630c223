"""What answers from the pages on a device, for the engines that share them."""

import warnings
import weakref
from functools import partial

import numpy as np

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from morphogen.errors import (
    DeviceError,
    DeviceOutOfMemoryError,
    DeviceUnavailableError,
    EngineClosedError,
)
from morphogen.engine.calls cimport Calls
from morphogen.kernels cimport (
    ReadJob,
    kBlockThreads,
    kMaxChunkKeys,
    kVectorBytes,
    kWideChunkKeys,
    kWidestChunkKeys,
)
from morphogen.planner cimport KeyPacker

import morphogen.engine.cuda.ptx as ptx
import morphogen.engine.cuda.variants as variants
from morphogen.engine.cuda._driver import device_facts
from morphogen.engine.cuda.bit_pages import bits_size, buffers_size, check_native
from morphogen.engine.cuda.device_pages import padded_size
from morphogen.engine.cuda.lane import sums_size
from morphogen.engine.cuda.page_kernel import open_page_kernels, open_variant
from morphogen.engine.cuda.variants import DEFAULT

from morphogen.engine.cuda._driver cimport Context, Kernel, Module
from morphogen.engine.cuda.bit_pages cimport BitKernel, BitPages
from morphogen.engine.cuda.device_pages cimport DevicePages
from morphogen.engine.cuda.lane cimport Lane
from morphogen.engine.cuda.page_kernel cimport PageKernel

# The source of the kernels for wide chunks.
BITS = "page_bits"


@cython.final
@cython.no_gc_clear
cdef class Scanner:
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

    def __cinit__(
        self, pages: PageMatrix, int ordinal, size_t key_size, int lanes,
        progress: Progress | None, generate: int | None, phases: PhaseCounter | None,
        layout: str, tuned: dict[int, str],
    ) -> None:
        if phases is not None:
            phases.open(f"cuda:{ordinal}")
            self._counter = partial(phases.add, f"cuda:{ordinal}")
        self.lanes = Calls("an engine", [])
        self._engines = []
        self.generated = generate is not None
        self._context = Context(ordinal)
        with self._context:
            self._open(pages, key_size, lanes, progress, generate, layout == "bits")
            self._choose(tuned)

    def _open(self, pages, size_t key_size, int lanes, progress, generate, bint bits):
        facts = self._facts = device_facts(self._context.ordinal)
        if bits:
            check_native(self._context.ordinal, facts["compute_capability"])
        module, self.ptx, self.code = self._load(ptx.SOURCE)
        self._read = Kernel(module, b"morphogen_read")
        self._read_blocks = facts["multiprocessors"] * self._read.resident_blocks(kBlockThreads)
        stride = padded_size(pages.page_size)
        self._kernels = open_page_kernels(
            self._context, module, pages.num_pages, stride, facts["multiprocessors"]
        )
        self._variants = {DEFAULT: self._kernels}
        self.grid = self._kernels[kMaxChunkKeys].grid
        self._tiles = max(kernel.grid.tiles for kernel in self._kernels[1:])
        more = lanes * sums_size(kMaxChunkKeys, stride, self._tiles)
        if bits:
            more += bits_size(pages.num_pages, stride)
            more += lanes * buffers_size(pages.num_pages, stride, key_size)
        self._pages = DevicePages(
            self._context, pages.first, pages.num_pages, pages.page_size, more
        )
        if bits:
            bit_module = self._load(BITS)[0]
            self._bits = BitPages(self._context, bit_module, self._pages, facts["multiprocessors"])
            self._tiles = max(self._tiles, self._bits.tiles)
        self._key_size = key_size
        self._lanes = []
        self._open_lanes(lanes)
        if generate is None:
            self._pages.upload(pages, progress)
        else:
            fill = Kernel(module, b"morphogen_fill")
            self._pages.generate(fill, self._read_blocks, generate)
        if bits:
            self._bits.renew()

    def _load(self, source):
        """The module of a source, the PTX that it is of, and the code that was loaded."""
        compute_capability = self._facts["compute_capability"]
        path = ptx.choose(compute_capability, source)
        if path is None:
            raise DeviceUnavailableError(
                f"no PTX of {source} for compute capability {compute_capability} in {ptx.FOLDER}"
            )
        target = path.stem.partition(".")[2]
        compiled = ptx.choose_compiled(compute_capability, source)
        if compiled is not None:
            try:
                module = Module(self._context, compiled.read_bytes())
                return module, target, compiled.stem.partition(".")[2]
            except DeviceOutOfMemoryError:
                raise
            except DeviceError:
                # The PTX may do for this driver. If it does not, its error tells more.
                pass
        return Module(self._context, path.read_bytes()), target, target

    def _choose(self, dict tuned):
        """Take variants in the place of kernels, as far as the driver loads them."""
        self.tuned = {}
        self._chosen = list(self._kernels) if tuned else self._kernels
        for keys, name in tuned.items():
            try:
                kernels = self.kernels_of(name)
            except DeviceError as error:
                warnings.warn(f"{name}, as tuned, is passed over: {error}", RuntimeWarning)
                continue
            self.tuned[keys] = name
            for at, kernel in enumerate(self._kernels[1:], 1):
                if (<PageKernel>kernel).keys == keys:
                    self._chosen[at] = kernels[at]

    cdef list kernels_of(self, str variant):
        """The kernels of a variant by the number of keys, loaded when first asked for."""
        cdef list kernels = self._variants.get(variant)
        if kernels is None:
            chosen = variants.find(variant)
            module = self._load(chosen.source)[0]
            kernels = open_variant(
                self._context, module, chosen, self._kernels, self._pages.num_pages,
                self._pages.stride, self._facts["multiprocessors"],
            )
            self._variants[variant] = kernels
        return kernels

    def _open_lanes(self, Py_ssize_t count):
        while self._opened < count:
            self._opened += 1  # first, since another call may want it meanwhile
            try:
                lane = Lane(self._context, self._pages, self._key_size, kMaxChunkKeys, self._tiles)
            except BaseException:
                self._opened -= 1
                raise
            (<Lane>lane).counter = self._counter
            self._lanes.append(lane)
            self.lanes.add(lane)

    @property
    def compute_capability(self) -> tuple[int, int]:
        """That of the device: major and minor."""
        return self._facts["compute_capability"]

    def share(self, engine: Engine) -> None:
        """Count an engine in, until it is gone or has released this."""
        self._engines.append(weakref.ref(engine))

    def engines(self) -> list[Engine]:
        """The engines that answer from these pages."""
        # Without a step of Python's own, in which an interrupt could come.
        engines = [one() for one in self._engines]
        engines = [one for one in engines if one is not None and one._scanner is self]
        self._engines = [weakref.ref(one) for one in engines]
        return engines

    def replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        """Copy these of the pages to the device, alone, and leave it `torn` until `mend`.

        If this fails before it copies anything, nothing is changed.

        Parameters
        ----------
        pages : PageMatrix
        indices : numpy.ndarray
            int64, ascending.
        """
        self._context.enter()
        try:
            self._pages.replace(pages, indices)
            if self._bits is not None and len(indices):
                self._bits.renew(indices)
        except BaseException:
            self._settle(self._lanes)
            raise
        finally:
            self._context.leave()

    @property
    def torn(self) -> bool:
        return self._pages.torn

    def mend(self) -> None:
        """Tell that engines know of the pages that `replace` copied."""
        self._pages.torn = False

    cdef int check_whole(self) except -1:
        """Refuse a use after a failure for which engines were closed."""
        if self.failed is not None:
            raise EngineClosedError(self.failed)
        return 0

    cdef object read(self, Lane lane):
        """Read every page once, in a lane: the XOR of their words."""
        cdef ReadJob job
        cdef void* parameters[1]
        cdef Kernel kernel = self._read
        job.pages = self._pages.address()
        job.vectors = self._pages.num_pages * (self._pages.stride // kVectorBytes)
        # It must find a sum and a counter at zero, and leaves them so: those of a lane's chunks.
        job.sum = <uint64_t*>lane.job.accumulators
        job.finished = lane.job.finished
        job.answer = <uint64_t*>lane.job.answers
        parameters[0] = &job
        with self._context:
            try:
                if lane.unclean:
                    with nogil:
                        lane.clean()
                with nogil:
                    kernel.launch(self._read_blocks, kBlockThreads, parameters, lane.stream)
                    lane.stream.synchronize()
            except DeviceError:
                self._settle([lane])
                raise
        return (<uint64_t*>lane.answers())[0]

    cdef int answer(self, Lane first, KeyPacker packer, list ranges, uint8_t[:, :, ::1] out,
                    strategy, double[:, ::1] times) except -1:
        """Answer the packed batch, beside other calls.

        A call has the lane that `lanes` gave it. It takes more where they are free, and gives up
        all but one as soon as another call waits for a lane.
        times: a row for each chunk, if the strategy has one lane; or None.
        """
        cdef Py_ssize_t most = min(<Py_ssize_t>strategy.lanes, <Py_ssize_t>len(ranges))
        cdef bint graph = strategy.graph
        cdef list held = None, kernels
        if not ranges:
            return 0
        self._context.enter()
        try:
            kernels = self._chosen
            if strategy.variant is not None:
                kernels = self.kernels_of(strategy.variant)
            self._prepare(first, kernels, ranges[0][1] * packer.keys_per_query, graph)
            if most == 1:
                self._answer_in(first, kernels, packer, ranges, out, graph, times)
            else:
                held = [first]
                self._open_lanes(most)
                self._answer_by_turns(held, most, kernels, packer, ranges, out, graph)
        except BaseException:
            self._settle([first] if held is None else held)
            raise
        finally:
            self._context.leave()
        return 0

    cdef int _answer_in(self, Lane lane, list kernels, KeyPacker packer, list ranges,
                        uint8_t[:, :, ::1] out, bint graph, double[:, ::1] times) except -1:
        cdef Py_ssize_t start, stop, chunk = 0
        cdef double* row = NULL
        for start, stop in ranges:
            if times is not None:
                row = &times[chunk, 0]
            self._submit(lane, kernels, packer, start, stop, &out[start, 0, 0], graph, row)
            chunk += 1
            # A batch of many chunks must heed Ctrl-C.
            PyErr_CheckSignals()
        with nogil:
            lane.finish()
        return 0

    cdef int _answer_by_turns(self, list held, Py_ssize_t most, list kernels, KeyPacker packer,
                              list ranges, uint8_t[:, :, ::1] out, bint graph) except -1:
        """Answer in the lanes that are held, and in more."""
        cdef Py_ssize_t start, stop, oldest = 0  # the lane of the chunk that is longest under way
        cdef Lane lane
        for start, stop in ranges:
            if self.lanes.is_wanted():
                if len(held) > 1:
                    oldest = self._give_up(held, oldest)
            elif start > 0 and len(held) < most:
                lane = self.lanes.take_more()
                if lane is not None:
                    self._prepare(lane, kernels, ranges[0][1] * packer.keys_per_query, graph)
                    held.insert(oldest, lane)
            lane = held[oldest]
            oldest = (oldest + 1) % <Py_ssize_t>len(held)
            self._submit(lane, kernels, packer, start, stop, &out[start, 0, 0], graph, NULL)
            PyErr_CheckSignals()
        while held:
            oldest = self._give_up(held, oldest)
        return 0

    cdef Py_ssize_t _give_up(self, list held, Py_ssize_t at) except -1:
        """Wait for the chunk in a lane and leave that to others. Which lane is the next, then."""
        cdef Lane lane = held[at]
        with nogil:
            lane.finish()
        del held[at]
        self.lanes.give_back(lane)
        return at if at < len(held) else 0

    cdef int _submit(self, Lane lane, list kernels, KeyPacker packer, Py_ssize_t start,
                     Py_ssize_t stop, uint8_t* out, bint graph, double* times) except -1:
        cdef unsigned int keys = (stop - start) * packer.keys_per_query
        cdef PageKernel kernel
        cdef BitKernel wide
        if self._runs_on_bits(kernels, keys):
            wide = self._bits.kernel_for(keys)
            with nogil:
                lane.finish()
                lane.submit_bits(wide, packer.chunk_keys(start), keys, out, times)
            return 0
        kernel = kernels[keys]
        with nogil:
            lane.finish()
            lane.submit(kernel, packer.chunk_keys(start), keys, out, graph, times)
        return 0

    cdef bint _runs_on_bits(self, list kernels, unsigned int keys) noexcept:
        """Whether the pages are laid out for tensor cores, and a chunk is one for these."""
        if self._bits is None:
            return False
        # A variant that was asked for runs as far as there is one; the default is none.
        own = kernels is self._chosen or kernels is self._kernels
        return keys > <unsigned int>(kWideChunkKeys if own else kWidestChunkKeys)

    cdef int _prepare(self, Lane lane, list kernels, unsigned int keys, bint graph) except -1:
        """Give a lane room for chunks of so many keys, and a graph, as far as they are missing."""
        cdef PageKernel kernel
        if self._runs_on_bits(kernels, keys):
            lane.reserve_bits(self._bits, self._bits.kernel_for(keys))
        else:
            kernel = kernels[keys]
            lane.reserve(kernel.keys)
        if graph:
            lane.open_graph()
        if lane.unclean:
            with nogil:
                lane.clean()
        return 0

    cdef int _settle(self, list lanes) except -1:
        """Wait for lanes after an error, and find out whether the device is lost."""
        cdef Lane lane
        for lane in lanes:
            try:
                with nogil:
                    lane.settle()
            except DeviceError:
                self.broken = True
        return 0
