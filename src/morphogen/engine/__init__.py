"""Engines: what answers batches over a page matrix, and how to open one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from morphogen.errors import DeviceUnavailableError

if TYPE_CHECKING:
    from morphogen.engine.base import Engine
    from morphogen.pages import PageMatrix


def open_engine(
    pages: PageMatrix,
    device: str = "auto",
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Engine:
    """Open an engine over a page matrix.

    Parameters
    ----------
    pages : PageMatrix
        The table to answer from.
    device : str, optional
        "cpu"; or "auto", the best device that can be used here, which in this version is the CPU.
    threads : int, optional
        On the CPU, the threads that share a pass; by default one for each core this process may
        use.
    instruction_set : str, optional
        On the CPU, one of ``morphogen.instruction_set.supported()``; by default the widest.

    Returns
    -------
    Engine
        Close it, or use it with ``with``.

    Raises
    ------
    DeviceUnavailableError
        If the device cannot be used here.
    TypeError, ValueError
        If an argument has the wrong type or is out of range.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a str, not {type(device).__name__}")
    if re.fullmatch(r"cuda(:\d+)?", device):
        raise DeviceUnavailableError(
            f"device {device!r} needs the GPU engine, which this version does not have: "
            "use 'cpu' or 'auto'"
        )
    if device not in ("auto", "cpu"):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {device!r}")

    from morphogen.engine.cpu import CpuEngine

    return CpuEngine(pages, threads=threads, instruction_set=instruction_set)
