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
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return DeviceOutOfMemoryError(message)
    if name in _UNAVAILABLE:
        return DeviceUnavailableError(message)
    return DeviceError(message)
