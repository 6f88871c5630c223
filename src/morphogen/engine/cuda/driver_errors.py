"""The errors that failures of the CUDA driver become."""

from __future__ import annotations

from morphogen.engine.cuda.driver_library import no_driver
from morphogen.errors import DeviceError, DeviceOutOfMemoryError, DeviceUnavailableError

# With these the driver says that it, or the device, cannot run this library at all.
_UNAVAILABLE = frozenset(
    {
        "CUDA_ERROR_NOT_INITIALIZED",
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_NO_DEVICE",
        "CUDA_ERROR_INVALID_DEVICE",
        "CUDA_ERROR_DEVICE_NOT_LICENSED",
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "CUDA_ERROR_INVALID_PTX",
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
        "CUDA_ERROR_JIT_COMPILATION_DISABLED",
        "CUDA_ERROR_SYSTEM_NOT_READY",
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    }
)

# After these every call of the process fails: cuda.h says that it must be ended and launched again.
_STICKY = frozenset(
    {
        "CUDA_ERROR_CONTAINED",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "CUDA_ERROR_INVALID_PC",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_TENSOR_MEMORY_LEAK",
        "CUDA_ERROR_MPS_CLIENT_TERMINATED",
        "CUDA_ERROR_EXTERNAL_DEVICE",
    }
)
_RESTART = "start this process again to use the device"

# A stub knows no names of errors either.
_STUB = frozenset({"CUDA_ERROR_STUB_LIBRARY", "error 34"})


def driver_error(call: str, name: str, text: str, detail: str) -> DeviceError:
    """The error to raise for a call that failed.

    Parameters
    ----------
    call : str
        The function, "cuMemAlloc".
    name : str
        The result's name, "CUDA_ERROR_OUT_OF_MEMORY".
    text : str
        The driver's words; may be empty.
    detail : str
        The caller's words; may be empty.

    Returns
    -------
    DeviceError
        Or one that derives from it.
    """
    if name in _STUB:
        return no_driver()
    message = f"{call} failed: {name}"
    if text:
        message += f" ({text})"
    if detail:
        message += f": {detail}"
    if name in _STICKY:
        message = advise_restart(message)
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return DeviceOutOfMemoryError(message)
    if name in _UNAVAILABLE:
        return DeviceUnavailableError(message)
    return DeviceError(message)


def advise_restart(message: str) -> str:
    """Say that only another process can use the device again.

    Parameters
    ----------
    message : str
        What happened, which may say so already.

    Returns
    -------
    str
    """
    return message if _RESTART in message else f"{message}; {_RESTART}"
