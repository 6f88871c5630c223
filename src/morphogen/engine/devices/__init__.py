"""The names of devices: "auto", "cpu", "cuda", "cuda:N", and those that share the pages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from morphogen.errors import DeviceUnavailableError

# Every usable GPU of this host.
ALL_GPUS = "cuda:all"

_ONE = re.compile(r"auto|cpu|cuda(?::([0-9]{1,9}))?")
_SHARING = re.compile(r"cpu|cuda:([0-9]{1,9})")


def shares_pages(device: str | Sequence[str]) -> bool:
    """Whether a name stands for devices that share the pages, not for one that has them all.

    Parameters
    ----------
    device : str or sequence of str
        As `open_engine` takes it.

    Returns
    -------
    bool
        True for "cuda:all", a list or tuple, and names with commas between.
    """
    return not isinstance(device, str) or device == ALL_GPUS or "," in device


def device_candidates(device: str | Sequence[str]) -> tuple[int | None, ...]:
    """The devices that a name stands for.

    Parameters
    ----------
    device : str or sequence of str
        As `open_engine` takes it.

    Returns
    -------
    tuple of (int or None)
        N for "cuda:N", None for the CPU. At least one: all that share the pages, or else those of
        which one is to have them, best first.

    Raises
    ------
    DeviceUnavailableError
        If a GPU is asked for and cannot be used here; the message says what is missing.
    TypeError, ValueError
        If there is no such name.
    """
    if isinstance(device, str) and not shares_pages(device):
        return _of_one(device)
    return _usable_gpus() if device == ALL_GPUS else _of_many(device)


def gpus_among(
    candidates: Sequence[int | None],
    device: str | Sequence[str],
    options: str = "lanes and graph are",
) -> tuple[int, ...]:
    """Those of some devices for which options of GPUs are.

    Parameters
    ----------
    candidates : sequence of (int or None)
        As from `device_candidates`.
    device : str or sequence of str
        The name that they have, for the message.
    options : str, optional
        What is for GPUs only, for the message.

    Returns
    -------
    tuple of int
        N for "cuda:N", in order.

    Raises
    ------
    DeviceUnavailableError
        If "auto" was to choose one, and none can be used here.
    ValueError
        If there is none.
    """
    gpus = tuple(ordinal for ordinal in candidates if ordinal is not None)
    if not gpus and device == "auto":
        from morphogen.engine.cuda.status import driver_status

        status = driver_status()
        if not status.usable:
            raise DeviceUnavailableError(
                f"{options} for a GPU, and none can be used: {status.reason}"
            )
    if not gpus:
        raise ValueError(f"{options} for a GPU, and {device!r} is none here")
    return gpus


def _of_one(device: str) -> tuple[int | None, ...]:
    match = _ONE.fullmatch(device)
    if not match:
        raise ValueError(
            "device must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'cuda:all', or names such as "
            f"'cuda:0,cuda:2', not {device!r}"
        )
    if device == "cpu":
        return (None,)
    if device == "auto":
        from morphogen.engine.cuda.status import driver_status

        return (*(found.ordinal for found in driver_status().devices if found.usable), None)
    if match[1] is None:
        return _usable_gpus()[:1]
    return (_check_gpu(int(match[1])),)


def _of_many(device: str | Sequence[str]) -> tuple[int | None, ...]:
    if not isinstance(device, str | list | tuple):
        raise TypeError(
            f"device must be a str, or a list or tuple of them, not {type(device).__name__}"
        )
    names = device.split(",") if isinstance(device, str) else device
    if not names:
        raise ValueError(f"device must name at least one device, not {device!r}")
    ordinals: list[int | None] = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"each of several devices must be a str, not {type(name).__name__}")
        match = _SHARING.fullmatch(name)
        if not match:
            raise ValueError(f"each of several devices must be 'cpu' or 'cuda:N', not {name!r}")
        ordinals.append(int(match[1]) if match[1] else None)
    gpus = [ordinal for ordinal in ordinals if ordinal is not None]
    for ordinal in gpus:
        if gpus.count(ordinal) > 1:
            raise ValueError(
                f"device must name each GPU once, not cuda:{ordinal} {gpus.count(ordinal)} times"
            )
    for ordinal in gpus:
        _check_gpu(ordinal)
    return tuple(ordinals)


def _usable_gpus() -> tuple[int, ...]:
    from morphogen.engine.cuda.status import driver_status

    status = driver_status()
    usable = tuple(found.ordinal for found in status.devices if found.usable)
    if not usable:
        raise DeviceUnavailableError(f"no GPU can be used: {status.reason}")
    return usable


def _check_gpu(ordinal: int) -> int:
    from morphogen.engine.cuda.status import driver_status

    status = driver_status()
    if not status.devices:
        raise DeviceUnavailableError(f"cuda:{ordinal} cannot be used: {status.reason}")
    if ordinal >= len(status.devices):
        raise DeviceUnavailableError(
            f"cuda:{ordinal} is not there: the driver shows {len(status.devices)} device(s)"
        )
    if not status.devices[ordinal].usable:
        raise DeviceUnavailableError(
            f"cuda:{ordinal} cannot be used: {status.devices[ordinal].reason}"
        )
    return ordinal
