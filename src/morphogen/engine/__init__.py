"""Engines answer batches of queries over a page matrix. `open_engine` opens one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from morphogen.errors import DeviceOutOfMemoryError, DeviceUnavailableError
from morphogen.progress import Progress

if TYPE_CHECKING:
    from morphogen.engine.base import Engine
    from morphogen.pages import PageMatrix


def open_engine(
    pages: PageMatrix,
    device: str = "auto",
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Open an engine over a page matrix.

    Parameters
    ----------
    pages : PageMatrix
        The pages to answer from. A GPU gets a copy.
    device : str, optional
        "cpu"; "cuda:N"; "cuda", the first GPU that can be used; or "auto", the first GPU that can
        be used and has room for the pages, else the CPU.
    threads : int, optional
        On the CPU, the threads that share a pass; by default one for each core this process may
        use.
    instruction_set : str, optional
        On the CPU, one of ``morphogen.instruction_set.supported()``; by default the widest.
    progress : callable, optional
        On a GPU, called while the pages are uploaded, with the bytes sent and the bytes in all.

    Returns
    -------
    Engine
        Close it, or use it with ``with``.

    Raises
    ------
    DeviceUnavailableError
        If the device cannot be used here; the message says what is missing.
    DeviceOutOfMemoryError
        If the pages do not fit the device.
    DeviceError
        If the device fails, or the system refuses to start that many threads.
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen as mg
    >>> pages = mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8))
    >>> with mg.open_engine(pages, device="cpu", threads=1) as engine:
    ...     engine.device, engine.max_micro_batch
    ('cpu', 32)
    """
    candidates = device_candidates(device)
    if threads is not None or instruction_set is not None:
        if candidates[-1] is not None:
            raise ValueError(f"threads and instruction_set are the CPU's, not for {device!r}")
        candidates = (None,)  # both are the CPU's
    for ordinal in candidates:
        if ordinal is None:
            break
        from morphogen.engine.cuda import CudaEngine

        try:
            return CudaEngine(pages, ordinal, progress=progress)
        except (DeviceOutOfMemoryError, DeviceUnavailableError):
            if ordinal == candidates[-1]:
                raise

    from morphogen.engine.cpu import CpuEngine

    return CpuEngine(pages, threads=threads, instruction_set=instruction_set)


def device_candidates(device: str) -> tuple[int | None, ...]:
    """The devices that a name stands for, best first.

    Parameters
    ----------
    device : str
        As `open_engine` takes it.

    Returns
    -------
    tuple of (int or None)
        N for "cuda:N", None for the CPU. At least one.

    Raises
    ------
    DeviceUnavailableError
        If a GPU is asked for and cannot be used here; the message says what is missing.
    TypeError, ValueError
        If there is no such name.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a str, not {type(device).__name__}")
    match = re.fullmatch(r"auto|cpu|cuda(?::([0-9]{1,9}))?", device)
    if not match:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    if device == "cpu":
        return (None,)
    from morphogen.engine.cuda.status import driver_status

    status = driver_status()
    usable = tuple(found.ordinal for found in status.devices if found.usable)
    if device == "auto":
        return (*usable, None)
    if match[1] is None:
        if not usable:
            raise DeviceUnavailableError(f"no GPU can be used: {status.reason}")
        return usable[:1]
    ordinal = int(match[1])
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
    return (ordinal,)
