"""Engines answer batches of queries over a page matrix. `open_engine` opens one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphogen.engine.devices import (
    device_candidates as device_candidates,
    gpus_among,
    shares_pages as shares_pages,
)
from morphogen.engine.layouts import check_layout
from morphogen.errors import DeviceOutOfMemoryError, DeviceUnavailableError
from morphogen.progress import Progress

if TYPE_CHECKING:
    from morphogen.engine.base import Engine
    from morphogen.engine.cuda.phases import PhaseCounter
    from morphogen.pages import PageMatrix


def open_engine(
    pages: PageMatrix,
    device: str | Sequence[str] = "auto",
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
    lanes: int | None = None,
    graph: bool = False,
    phases: PhaseCounter | None = None,
    progress: Progress | None = None,
    layout: str = "plain",
) -> Engine:
    """Open an engine over a page matrix.

    Parameters
    ----------
    pages : PageMatrix
        The pages to answer from. A GPU gets a copy.
    device : str or sequence of str, optional
        "cpu"; "cuda:N"; "cuda", the first GPU that can be used; or "auto", the first GPU that can
        be used and has room for the pages, else the CPU. Several devices share the pages, each with
        a part: "cuda:all" stands for all GPUs that can be used, and a list, a tuple, or commas
        between, such as "cuda:0,cuda:2", for those that it names.
    threads : int, optional
        On the CPU, the threads that share a pass; by default one for each core this process may
        use. Where "cpu" is one of several devices or more, those of all together.
    instruction_set : str, optional
        On the CPU, one of ``morphogen.instruction_set.supported()``; by default the widest.
    lanes : int, optional
        On a GPU, chunks under way at a time: 1, 2 or 4; by default 2.
    graph : bool, optional
        On a GPU, whether to launch chunks by replaying a CUDA graph. Those that run on tensor cores
        (``layout="bits"``) never are.
    phases : PhaseCounter, optional
        Counts the times of chunks on GPUs, which takes some microseconds of each.
    progress : callable, optional
        On a GPU, called while the pages are uploaded, with the bytes sent and the bytes in all.
    layout : str, optional
        "bits" lets one GPU of compute capability 8 or 9 hold the pages a second time, bit by bit,
        for chunks of up to 32 queries where ``max_micro_batch=`` of `Engine.answer` asks for them.
        It takes twice the memory. "plain", the default, holds them once.

    Returns
    -------
    Engine
        Close it, or use it with ``with``.

    Raises
    ------
    DeviceUnavailableError
        If the device cannot be used here; the message says what is missing.
    DeviceOutOfMemoryError
        If the pages do not fit the device, or all devices together.
    DeviceError
        If the device fails, or the system refuses to start that many threads.
    TypeError, ValueError
        If an argument has the wrong type or is out of range, there are more devices than leaves
        of 512 pages, or ``layout="bits"`` is asked of the CPU or of several devices.

    Notes
    -----
    Of several devices each takes an equal part, unless its free memory is less: then the others
    share what it leaves. The engine is a `ShardedEngine`, and its ``device`` names them. An error
    says of which device it is, and once one is lost, the engine is closed. Where only one is used,
    it is that device's own engine.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen as mg
    >>> pages = mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8))
    >>> with mg.open_engine(pages, device="cpu", threads=1) as engine:
    ...     engine.device, engine.max_micro_batch
    ('cpu', 32)
    """
    check_layout(layout)
    candidates = device_candidates(device)
    sharing = shares_pages(device)
    if threads is not None or instruction_set is not None:
        if None not in candidates:
            raise ValueError(f"threads and instruction_set are the CPU's, not for {device!r}")
        if not sharing:
            candidates = (None,)  # both are the CPU's
    if lanes is not None or graph:
        gpus = gpus_among(candidates, device)
        if not sharing:
            candidates = gpus
    if sharing and len(candidates) > 1:
        if layout != "plain":
            raise ValueError(f"layout={layout!r} is for one GPU, not for {device!r}")
        from morphogen.engine.devices.across import open_across_devices

        return open_across_devices(
            pages,
            candidates,
            threads=threads,
            instruction_set=instruction_set,
            lanes=lanes,
            graph=graph,
            phases=phases,
            progress=progress,
        )
    if layout != "plain":
        candidates = gpus_among(candidates, device, f"layout={layout!r} is")
    for ordinal in candidates:
        if ordinal is None:
            break
        from morphogen.engine.cuda import CudaEngine

        try:
            return CudaEngine(
                pages,
                ordinal,
                progress=progress,
                layout=layout,
                lanes=lanes,
                graph=graph,
                phases=phases,
            )
        except (DeviceOutOfMemoryError, DeviceUnavailableError):
            if ordinal == candidates[-1]:
                raise

    from morphogen.engine.cpu import CpuEngine

    return CpuEngine(pages, threads=threads, instruction_set=instruction_set)
