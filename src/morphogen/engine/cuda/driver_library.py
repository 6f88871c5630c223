"""The libcuda.so.1 of this process, where the CUDA bindings cannot use it."""

from __future__ import annotations

import ctypes

from morphogen.errors import DeviceUnavailableError

NAME = "libcuda.so.1"
_SUCCESS = 0


def ask_version() -> int:
    """Find out which driver the bindings met: none, one too old for them, or no driver at all.

    Returns
    -------
    int
        The newest CUDA version that the driver supports, as 1000 * major + 10 * minor.

    Raises
    ------
    DeviceUnavailableError
        If the library cannot be loaded, or does not act as a driver.
    """
    try:
        library = ctypes.CDLL(NAME)
    except OSError as error:
        message = f"there is no NVIDIA driver: {NAME} cannot be loaded"
        if not str(error).startswith(f"{NAME}: cannot open shared object file: No such file"):
            message += f" ({error})"
        raise DeviceUnavailableError(message) from error
    version = ctypes.c_int(0)
    try:
        result = library.cuDriverGetVersion(ctypes.byref(version))
    except AttributeError:  # it has no such function
        raise no_driver() from None
    if result != _SUCCESS or version.value <= 0:
        raise no_driver()
    return version.value


def no_driver() -> DeviceUnavailableError:
    """The error for a library that is not the driver's, such as the toolkit's for linking.

    Returns
    -------
    DeviceUnavailableError
    """
    return DeviceUnavailableError(f"a {NAME} was loaded that is no driver (a stub?)")
