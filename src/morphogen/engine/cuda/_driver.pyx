"""The CUDA driver, as the GPU engine sees it: objects that own what they free, calls that raise.

Objects are made, and their methods called, in a context that `Context.enter` made current; they
free themselves in any thread, at any time. Nothing here knows of pages or keys.

A call costs one comparison more than the driver's own; errors are made out of line.
"""

cimport cython
from cuda.bindings cimport cydriver as cu
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memset

import morphogen.engine.cuda.driver_library as driver_library
from morphogen.engine.cuda.driver_errors import driver_error

cdef extern from "unistd.h" nogil:
    int getpid()

cdef enum:
    LOG_BYTES = 4096


cdef inline int check(cu.CUresult result, const char* call) except -1 nogil:
    if result != cu.CUDA_SUCCESS:
        raise_error(result, call)
    return 0


cdef int raise_error(cu.CUresult result, const char* call) except -1 with gil:
    return raise_detailed_error(result, call, "")


cdef int raise_detailed_error(cu.CUresult result, const char* call, str detail) except -1:
    cdef const char* name = NULL
    cdef const char* text = NULL
    cu.cuGetErrorName(result, &name)
    cu.cuGetErrorString(result, &text)
    known = (<bytes>name).decode() if name != NULL else f"error {<int>result}"
    said = (<bytes>text).decode() if text != NULL else ""
    raise driver_error((<bytes>call).decode(), known, said, detail)


def initialize() -> int:
    """Load the driver.

    Returns
    -------
    int
        The newest CUDA version that the driver supports, as 1000 * major + 10 * minor.

    Raises
    ------
    DeviceUnavailableError
        If there is no driver, or it finds no device that it can use.
    """
    cdef int version = 0
    try:
        check(cu.cuDriverGetVersion(&version), b"cuDriverGetVersion")
    except RuntimeError:  # the bindings found no library, or not its functions
        return driver_library.ask_version()
    return version or driver_library.ask_version()  # 0 is no driver's


def count_devices() -> int:
    """Devices that the driver shows to this process.

    Raises
    ------
    DeviceError
        If the driver cannot be used.
    """
    cdef int count = 0
    try:
        with nogil:
            check(cu.cuInit(0), b"cuInit")
        check(cu.cuDeviceGetCount(&count), b"cuDeviceGetCount")
    except RuntimeError as error:  # as above
        raise driver_library.no_driver() from error
    return count


def device_facts(ordinal: int) -> dict[str, Any]:
    """Name, compute capability, multiprocessors and bytes of memory of a device."""
    cdef cu.CUdevice device
    cdef char name[256]
    cdef size_t memory = 0
    name[0] = 0
    check(cu.cuDeviceGet(&device, ordinal), b"cuDeviceGet")
    check(cu.cuDeviceGetName(name, sizeof(name), device), b"cuDeviceGetName")
    check(cu.cuDeviceTotalMem(&memory, device), b"cuDeviceTotalMem")
    return {
        "name": (<bytes>name).decode(errors="replace"),
        "compute_capability": (
            _attribute(device, cu.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            _attribute(device, cu.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        ),
        "multiprocessors": _attribute(device, cu.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        "memory": memory,
    }


cdef int _attribute(cu.CUdevice device, cu.CUdevice_attribute attribute) except? -1:
    cdef int value = 0
    check(cu.cuDeviceGetAttribute(&value, attribute, device), b"cuDeviceGetAttribute")
    return value


@cython.final
cdef class Context:
    """The primary context of a device, which other libraries in this process share.

    Parameters
    ----------
    ordinal : int
        Number of the device.
    """

    def __cinit__(self, int ordinal) -> None:
        self._owner = getpid()
        self.ordinal = ordinal
        with nogil:
            check(cu.cuDeviceGet(&self._device, ordinal), b"cuDeviceGet")
            check(
                cu.cuDevicePrimaryCtxRetain(&self._handle, self._device),
                b"cuDevicePrimaryCtxRetain",
            )

    def __dealloc__(self):
        if self.is_usable():
            with nogil:
                cu.cuDevicePrimaryCtxRelease(self._device)

    cdef bint is_usable(self) noexcept nogil:
        # A forked child has the handle, but not the context.
        return self._handle != NULL and self._owner == getpid()

    cdef int enter(self) except -1 nogil:
        """Make it the thread's current context. Every call needs one of `leave`."""
        return check(cu.cuCtxPushCurrent(self._handle), b"cuCtxPushCurrent")

    cdef int leave(self) except -1 nogil:
        cdef cu.CUcontext left
        return check(cu.cuCtxPopCurrent(&left), b"cuCtxPopCurrent")

    def __enter__(self) -> Context:
        self.enter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.leave()

    def free_memory(self) -> int:
        """Free bytes of device memory."""
        cdef size_t free = 0, total = 0
        check(cu.cuMemGetInfo(&free, &total), b"cuMemGetInfo")
        return free


cdef int begin_free(Context context) except? -1 nogil:
    """Enter the context of an object that is freed; 0 if it has none, or none that can be used."""
    if context is None or not context.is_usable():
        return 0
    return cu.cuCtxPushCurrent(context._handle) == cu.CUDA_SUCCESS


cdef int end_free() except -1 nogil:
    # A destructor has no caller to tell of a failure.
    cdef cu.CUcontext left
    cu.cuCtxPopCurrent(&left)
    return 0


@cython.final
@cython.no_gc
cdef class DeviceMemory:
    """Memory of a device."""

    def __cinit__(self, Context context, size_t size) -> None:
        cdef cu.CUresult result
        with nogil:
            result = cu.cuMemAlloc(&self._address, size)
        if result == cu.CUDA_ERROR_OUT_OF_MEMORY:
            free = context.free_memory()
            raise_detailed_error(result, b"cuMemAlloc", f"{size} bytes asked for, {free} free")
        check(result, b"cuMemAlloc")
        self._context = context
        self.size = size

    def __dealloc__(self):
        with nogil:
            if begin_free(self._context):
                cu.cuMemFree(self._address)
                end_free()

    cdef void* address(self) noexcept nogil:
        return <void*><uintptr_t>self._address

    cdef int clear(self, Stream stream) except -1 nogil:
        """Write zeros, in the stream's order."""
        cdef cu.CUdeviceptr to = self._address
        return check(cu.cuMemsetD8Async(to, 0, self.size, stream._handle), b"cuMemsetD8Async")

    cdef int copy_from(self, size_t offset, const uint8_t* source, size_t size,
                       Stream stream) except -1 nogil:
        """Copy from the host's memory, in the stream's order."""
        cdef cu.CUdeviceptr to = self._address + offset
        return check(cu.cuMemcpyHtoDAsync(to, source, size, stream._handle), b"cuMemcpyHtoDAsync")


@cython.final
@cython.no_gc
cdef class HostMemory:
    """Page-locked memory of the host, which the device can reach."""

    def __cinit__(self, Context context, size_t size) -> None:
        cdef cu.CUdeviceptr address
        cdef cu.CUresult result
        with nogil:
            result = cu.cuMemHostAlloc(&self._pointer, size, cu.CU_MEMHOSTALLOC_DEVICEMAP)
        if result != cu.CUDA_SUCCESS:
            detail = f"{size} bytes of the host's page-locked memory asked for"
            raise_detailed_error(result, b"cuMemHostAlloc", detail)
        self._context = context
        self.size = size
        result = cu.cuMemHostGetDevicePointer(&address, self._pointer, 0)
        check(result, b"cuMemHostGetDevicePointer")
        self._device_pointer = <void*><uintptr_t>address

    def __dealloc__(self):
        with nogil:
            if begin_free(self._context):
                cu.cuMemFreeHost(self._pointer)
                end_free()

    cdef uint8_t* pointer(self) noexcept nogil:
        return <uint8_t*>self._pointer

    cdef void* device_pointer(self) noexcept nogil:
        return self._device_pointer


@cython.final
@cython.no_gc
cdef class Stream:
    """A queue of work that is done in order."""

    def __cinit__(self, Context context) -> None:
        check(cu.cuStreamCreate(&self._handle, cu.CU_STREAM_NON_BLOCKING), b"cuStreamCreate")
        self._context = context

    def __dealloc__(self):
        with nogil:
            if begin_free(self._context):
                cu.cuStreamDestroy(self._handle)
                end_free()

    cdef int synchronize(self) except -1 nogil:
        """Wait for all that was put into the stream."""
        return check(cu.cuStreamSynchronize(self._handle), b"cuStreamSynchronize")


@cython.final
@cython.no_gc
cdef class Event:
    """A point in a stream."""

    def __cinit__(self, Context context, bint timing) -> None:
        cdef unsigned int flags = cu.CU_EVENT_DEFAULT if timing else cu.CU_EVENT_DISABLE_TIMING
        check(cu.cuEventCreate(&self._handle, flags), b"cuEventCreate")
        self._context = context

    def __dealloc__(self):
        with nogil:
            if begin_free(self._context):
                cu.cuEventDestroy(self._handle)
                end_free()

    cdef int record(self, Stream stream) except -1 nogil:
        return check(cu.cuEventRecord(self._handle, stream._handle), b"cuEventRecord")

    cdef int synchronize(self) except -1 nogil:
        """Wait until the stream has passed this point."""
        return check(cu.cuEventSynchronize(self._handle), b"cuEventSynchronize")

    cdef double milliseconds_since(self, Event start) except -1 nogil:
        cdef float elapsed = 0
        check(cu.cuEventElapsedTime(&elapsed, start._handle, self._handle), b"cuEventElapsedTime")
        return elapsed


@cython.final
@cython.no_gc
cdef class Module:
    """Kernels for the context's device: code compiled for it, or PTX, which is compiled here."""

    def __cinit__(self, Context context, bytes code) -> None:
        cdef const char* image = code
        cdef char log[LOG_BYTES]
        cdef cu.CUjit_option options[2]
        cdef void* values[2]
        cdef cu.CUresult result
        log[0] = 0
        options[0] = cu.CU_JIT_ERROR_LOG_BUFFER
        values[0] = <void*>log
        options[1] = cu.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
        values[1] = <void*><uintptr_t>LOG_BYTES
        with nogil:  # the driver compiles PTX here
            result = cu.cuModuleLoadDataEx(&self._handle, image, 2, options, values)
        if result != cu.CUDA_SUCCESS:
            log[LOG_BYTES - 1] = 0
            detail = " ".join((<bytes>log).decode(errors="replace").split())
            raise_detailed_error(result, b"cuModuleLoadDataEx", detail)
        self._context = context

    def __dealloc__(self):
        with nogil:
            if begin_free(self._context):
                cu.cuModuleUnload(self._handle)
                end_free()


@cython.final
@cython.no_gc
cdef class Kernel:
    """A function of a module, with so many bytes of shared memory besides those it declares."""

    def __cinit__(self, Module module, bytes name, dynamic_shared: int = 0) -> None:
        cdef cu.CUresult asked
        check(cu.cuModuleGetFunction(&self._handle, module._handle, name), b"cuModuleGetFunction")
        if dynamic_shared > 0:
            # A device gives more than 48 KiB only if it is asked.
            asked = cu.cuFuncSetAttribute(
                self._handle, cu.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dynamic_shared
            )
            check(asked, b"cuFuncSetAttribute")
        self._module = module
        self._dynamic_shared = dynamic_shared

    cdef int resident_blocks(self, int threads) except -1:
        """Blocks of so many threads that a multiprocessor holds at a time."""
        cdef int blocks = 0
        check(
            cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &blocks, self._handle, threads, self._dynamic_shared
            ),
            b"cuOccupancyMaxActiveBlocksPerMultiprocessor",
        )
        return blocks

    cdef int launch(self, unsigned int blocks, unsigned int threads, void** parameters,
                    Stream stream) except -1 nogil:
        """Put a launch into a stream. The parameters are copied before this returns."""
        return check(
            cu.cuLaunchKernel(
                self._handle, blocks, 1, 1, threads, 1, 1, self._dynamic_shared,
                stream._handle, parameters, NULL,
            ),
            b"cuLaunchKernel",
        )


@cython.final
@cython.no_gc
cdef class LaunchGraph:
    """A graph of one launch, instantiated once, then changed and replayed for every launch."""

    def __cinit__(self, Context context) -> None:
        check(cu.cuGraphCreate(&self._graph, 0), b"cuGraphCreate")
        self._context = context

    def __dealloc__(self):
        with nogil:
            if begin_free(self._context):
                if self._handle != NULL:
                    cu.cuGraphExecDestroy(self._handle)
                cu.cuGraphDestroy(self._graph)
                end_free()

    cdef int launch(self, Kernel kernel, unsigned int blocks, unsigned int threads,
                    void** parameters, Stream stream) except -1 nogil:
        """As `Kernel.launch`. The graph's last launch must have ended."""
        cdef cu.CUDA_KERNEL_NODE_PARAMS node
        cdef cu.CUresult added, made, changed
        memset(&node, 0, sizeof(node))
        node.func = kernel._handle
        node.gridDimX, node.gridDimY, node.gridDimZ = blocks, 1, 1
        node.blockDimX, node.blockDimY, node.blockDimZ = threads, 1, 1
        node.sharedMemBytes = kernel._dynamic_shared
        node.kernelParams = parameters
        if self._node == NULL:
            added = cu.cuGraphAddKernelNode(&self._node, self._graph, NULL, 0, &node)
            check(added, b"cuGraphAddKernelNode")
        if self._handle == NULL:
            made = cu.cuGraphInstantiate(&self._handle, self._graph, 0)
            check(made, b"cuGraphInstantiateWithFlags")  # as which cuda.h defines it
        changed = cu.cuGraphExecKernelNodeSetParams(self._handle, self._node, &node)
        check(changed, b"cuGraphExecKernelNodeSetParams")
        return check(cu.cuGraphLaunch(self._handle, stream._handle), b"cuGraphLaunch")
