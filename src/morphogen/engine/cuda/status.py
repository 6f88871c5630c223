"""The status of CUDA: the GPUs, driver and PTX that can be used, or the reason for none."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import morphogen.engine.cuda.ptx as ptx
from morphogen.checks import needs_extra
from morphogen.errors import DeviceError

if TYPE_CHECKING:
    from morphogen.engine.cuda._driver import Context


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """One device.

    Attributes
    ----------
    ordinal : int
        N of "cuda:N".
    name : str
        As the driver gives it.
    compute_capability : tuple of (int, int)
        Major and minor.
    multiprocessors : int
        The number of them.
    memory : int
        Bytes.
    ptx : str
        Name of the file of PTX for it; empty if there is none.
    compiled : str
        Name of the file with code compiled for it, which is loaded in the PTX's place unless the
        driver refuses it; empty if there is none.
    reason : str
        The reason that it cannot be used; empty if it can.
    """

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory: int
    ptx: str
    compiled: str
    reason: str

    @property
    def usable(self) -> bool:
        """Whether an engine can be opened on it."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """The driver and the devices of CUDA.

    Attributes
    ----------
    driver_version : str
        The newest CUDA version that the driver supports, such as "13.0"; empty without a driver.
    devices : tuple of DeviceStatus
        All that the driver shows to this process.
    reason : str
        The reason, in one line, that no device can be used; empty if one can.
    """

    driver_version: str
    devices: tuple[DeviceStatus, ...]
    reason: str

    @property
    def usable(self) -> bool:
        """Whether an engine can be opened on a GPU."""
        return not self.reason


@cache
def driver_status() -> DriverStatus:
    """Find out which GPUs, driver and PTX can be used here, and if none, the reason.

    Returns
    -------
    DriverStatus
        The same object at every call of a process.

    Notes
    -----
    Nothing is allocated on a device. The first call loads the CUDA driver.

    Examples
    --------
    >>> import morphogen as mg
    >>> status = mg.driver_status()
    >>> device = "cuda" if status.usable else "cpu"
    >>> status.usable == any(found.usable for found in status.devices)
    True
    """
    try:
        driver = _load_driver()
        version = driver.initialize()
    except (ImportError, DeviceError) as error:
        return DriverStatus("", (), " ".join(str(error).split()))
    described = ptx.describe_version(version)
    if version < ptx.DRIVER_VERSION:
        return DriverStatus(
            described,
            (),
            f"the NVIDIA driver supports CUDA {described}, and the page kernels need "
            f"{ptx.describe_version(ptx.DRIVER_VERSION)} or newer: update the driver",
        )
    try:
        count = driver.count_devices()
    except DeviceError as error:
        reason = f"the NVIDIA driver cannot be used: {error}"
        if "CUDA_ERROR_NO_DEVICE" in reason:
            reason = f"the NVIDIA driver shows no device: {error}"
        if "CUDA_ERROR_NOT_INITIALIZED" in reason:
            reason += ": a process forked from one that has used CUDA cannot use it"
        return DriverStatus(described, (), reason)
    devices = tuple(_examine(driver, ordinal) for ordinal in range(count))
    if not devices:
        return DriverStatus(described, (), "the NVIDIA driver shows no device to this process")
    reason = "" if any(device.usable for device in devices) else devices[0].reason
    return DriverStatus(described, devices, reason)


def _load_driver() -> ModuleType:
    driver = "morphogen.engine.cuda._driver"
    try:
        with needs_extra("cuda", "the GPU engine"):
            return importlib.import_module(driver)
    except (ImportError, TypeError, ValueError) as error:
        # Bindings of another version may have other C signatures, a TypeError, or structures.
        if isinstance(error, ModuleNotFoundError) and error.name != driver:
            raise
        raise ImportError(f"this build has no usable GPU engine: {error}") from None


# A forked child must find it out anew.
os.register_at_fork(after_in_child=driver_status.cache_clear)


def _examine(driver: ModuleType, ordinal: int) -> DeviceStatus:
    try:
        facts = driver.device_facts(ordinal)
    except DeviceError as error:
        return DeviceStatus(ordinal, "", (0, 0), 0, 0, "", "", f"cuda:{ordinal}: {error}")
    path = ptx.choose(facts["compute_capability"])
    compiled = ptx.choose_compiled(facts["compute_capability"])
    reason = ""
    if path is None:
        major, minor = facts["compute_capability"]
        least = ptx.LEAST_COMPUTE_CAPABILITY
        reason = (
            f"cuda:{ordinal}, {facts['name']}, has compute capability {major}.{minor}, and the "
            f"page kernels need {least[0]}.{least[1]} or more"
            if any(ptx.FOLDER.glob(f"{ptx.SOURCE}.*.ptx"))
            else f"the package has no PTX in {ptx.FOLDER}"
        )
    return DeviceStatus(
        ordinal=ordinal,
        ptx=path.name if path else "",
        compiled=compiled.name if compiled else "",
        reason=reason,
        **facts,
    )


def free_memory(ordinal: int) -> int:
    """Ask for the free memory of a device.

    Parameters
    ----------
    ordinal : int
        N of "cuda:N", a device that can be used.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    DeviceError
        If the device cannot be used.
    ImportError
        If the CUDA bindings are not installed.
    """
    with open_context(ordinal) as context:
        return context.free_memory()


def memory_of(device: str) -> tuple[int, int] | None:
    """Ask for the memory of a device that is in use.

    Parameters
    ----------
    device : str
        Its name, "cuda:N".

    Returns
    -------
    tuple of (int, int) or None
        Bytes that anybody uses, and all. None if the device does not answer.
    """
    ordinal = int(device.removeprefix("cuda:"))
    try:
        with open_context(ordinal) as context:
            free = context.free_memory()
        total = int(_load_driver().device_facts(ordinal)["memory"])
    except DeviceError:
        return None
    return total - free, total


def open_context(ordinal: int) -> Context:
    """Open the context of a device, which lasts as long as somebody has one.

    Parameters
    ----------
    ordinal : int
        N of "cuda:N", a device that can be used.

    Returns
    -------
    Context
        Enter it to ask the device.

    Raises
    ------
    DeviceError
        If the device cannot be used.
    ImportError
        If the CUDA bindings are not installed.
    """
    context: Context = _load_driver().Context(ordinal)
    return context
