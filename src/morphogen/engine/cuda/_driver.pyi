# Made by tools/release/make_stubs.py from the module's source.
"""The CUDA driver, as the GPU engine sees it: objects that own what they free, calls that raise.

Objects are made, and their methods called, in a context that `Context.enter` made current; they
free themselves in any thread, at any time. Nothing here knows of pages or keys.

A call costs one comparison more than the driver's own; errors are made out of line.
"""

from typing import Any

class Context:
    """The primary context of a device, which other libraries in this process share.

    Parameters
    ----------
    ordinal : int
        Number of the device.
    """

    @property
    def ordinal(self) -> int: ...
    def __init__(self, ordinal: int) -> None: ...
    def __enter__(self) -> Context: ...
    def __exit__(self, *exception: object) -> None: ...
    def free_memory(self) -> int:
        """Free bytes of device memory."""

class DeviceMemory:
    """Memory of a device."""

    @property
    def size(self) -> int: ...
    def __init__(self, context: Context, size: int) -> None: ...

class HostMemory:
    """Page-locked memory of the host, which the device can reach."""

    @property
    def size(self) -> int: ...
    def __init__(self, context: Context, size: int) -> None: ...

class Stream:
    """A queue of work that is done in order."""

    def __init__(self, context: Context) -> None: ...

class Event:
    """A point in a stream."""

    def __init__(self, context: Context, timing: bool) -> None: ...

class Module:
    """Kernels for the context's device: code compiled for it, or PTX, which is compiled here."""

    def __init__(self, context: Context, code: bytes) -> None: ...

class Kernel:
    """A function of a module, with so many bytes of shared memory besides those it declares."""

    def __init__(self, module: Module, name: bytes, dynamic_shared: int = 0) -> None: ...

class LaunchGraph:
    """A graph of one launch, instantiated once, then changed and replayed for every launch."""

    def __init__(self, context: Context) -> None: ...

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

def count_devices() -> int:
    """Devices that the driver shows to this process.

    Raises
    ------
    DeviceError
        If the driver cannot be used.
    """

def device_facts(ordinal: int) -> dict[str, Any]:
    """Name, compute capability, multiprocessors and bytes of memory of a device."""
