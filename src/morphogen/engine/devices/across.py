"""One engine over several devices of this machine, each of which has a part of the pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_int, check_range
from morphogen.engine.base import Engine
from morphogen.engine.cores import usable_cores
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.cuda.status import open_context
from morphogen.engine.devices.opening import Opener, open_side_by_side
from morphogen.engine.devices.placement import check_leaves, padded_size, place_pages
from morphogen.engine.named_errors import named_error
from morphogen.engine.sharded import Pass, ShardedEngine, ShardTransport
from morphogen.engine.shards.local import LocalShard
from morphogen.errors import DeviceError, EngineClosedError, ShardUnavailableError
from morphogen.pages import PageMatrix, TableShape, check_pages
from morphogen.progress import Progress

if TYPE_CHECKING:
    from morphogen.engine.cuda._driver import Context
    from morphogen.engine.cuda.phases import PhaseCounter


def open_across_devices(
    pages: PageMatrix,
    ordinals: Sequence[int | None],
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
    lanes: int | None = None,
    graph: bool = False,
    phases: PhaseCounter | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Open an engine over several devices of this machine.

    Parameters
    ----------
    pages : PageMatrix
        The pages, all of a table or a slice.
    ordinals : sequence of (int or None)
        Two or more: N for "cuda:N", None for the CPU, which may be there more than once.
    threads : int, optional
        The threads of all parts on the CPU together; by default one for each core.
    instruction_set : str, optional
        That of the parts on the CPU; by default the widest.
    lanes, graph, phases : optional
        Of each GPU, as `open_engine` takes them.
    progress : callable, optional
        Called while the pages are uploaded, with the bytes sent to all GPUs and the bytes in all.

    Returns
    -------
    Engine
        A `DevicesEngine`, or the one device's own if no other has room.

    Raises
    ------
    DeviceOutOfMemoryError
        If the pages do not fit all devices together.
    DeviceError
        If a device fails; the message names it.
    TypeError, ValueError
        If there are more devices than leaves of 512 pages, or an option has the wrong type or is
        out of range.
    """
    check_leaves(check_pages(pages).num_pages, len(ordinals))
    teams = iter(_share_threads(ordinals.count(None), threads))
    names = ["cpu" if ordinal is None else f"cuda:{ordinal}" for ordinal in ordinals]
    contexts: list[Context] = []  # kept until engines have them: a driver takes long to make one
    free = [None if ordinal is None else _free_memory(ordinal, contexts) for ordinal in ordinals]
    ranges = place_pages(pages.num_pages, pages.page_size, [*zip(names, free, strict=True)])
    openers: list[tuple[str, Opener]] = []
    open_gpu = partial(_open_gpu, lanes=lanes, graph=graph, phases=phases)
    uploaded = 0
    for name, ordinal, held in zip(names, ordinals, ranges, strict=True):
        if held is None:
            continue
        part = pages.slice(held.first, held.count)
        if ordinal is None:
            openers.append((name, partial(_open_cpu, part, next(teams), instruction_set)))
        else:
            openers.append((name, partial(open_gpu, part, ordinal)))
            uploaded += part.num_pages * padded_size(part.page_size)
    engines = open_side_by_side(openers, uploaded, progress)
    if len(engines) == 1:
        return engines[0]
    try:
        return DevicesEngine(
            [[LocalShard(engine)] for engine in engines],
            pages.table,
            device=",".join(name for name, _ in openers),
            pages=pages,
            max_micro_batch=min(map(_width, engines)),
        )
    except BaseException:
        for engine in engines:
            engine.close()
        raise


class DevicesEngine(ShardedEngine):
    """A sharded engine over devices of this process. Made by `morphogen.open_engine`.

    There is one of each, so that no other answers in its place: where one is lost, the engine is
    closed, as a `CudaEngine` is whose device is lost.
    """

    # A device goes on with the next pass while the parts of the one before are added up.
    passes_at_a_replica = 2

    @property
    def closed(self) -> bool:
        """Whether it was closed, or a device is lost."""
        self._close_if_lost()
        return super().closed

    def check_usable(self) -> None:
        """Refuse, as every call is refused, if this engine answers none any more.

        Raises
        ------
        EngineClosedError
            If it is closed, a device is lost, or it belongs to the parent of this process.
        """
        self._close_if_lost()
        super().check_usable()

    def _check_open(self) -> None:
        self._close_if_lost()
        super()._check_open()

    def _open_after(
        self,
        epoch: int,
        changed: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        root: bytes | None,
        opened: list[list[ShardTransport]],
    ) -> tuple[TableShape, PageMatrix | None]:
        with self._errors_of_devices():
            return super()._open_after(epoch, changed, pages, root, opened)

    def _scatter(self, jobs: Iterable[tuple[Pass, npt.NDArray[np.uint8]]]) -> None:
        with self._errors_of_devices():
            super()._scatter(jobs)

    def _close_if_lost(self) -> None:
        if self._closed or not self._owner.is_current():
            return
        for (shard,) in self.shards:
            try:
                cast(LocalShard, shard).engine.check_usable()
            except EngineClosedError as error:
                self._why_closed = f"{shard.name}: {error}"
                self._closed = True
                return

    @contextmanager
    def _errors_of_devices(self) -> Iterator[None]:
        """Raise what a device raised, with its name."""
        try:
            yield
        except ShardUnavailableError as error:
            self._close_if_lost()
            cause = error.__cause__
            if cause is None or isinstance(cause, EngineClosedError):
                self.check_usable()
                raise
            raise cause from cause.__cause__


def _width(engine: Engine) -> int:
    """The queries that keep all lanes of a device busy."""
    return engine.default_strategy.width * engine.default_strategy.lanes


def _open_cpu(
    pages: PageMatrix, threads: int, instruction_set: str | None, tell: Progress
) -> Engine:
    return CpuEngine(pages, threads=threads, instruction_set=instruction_set)


def _open_gpu(pages: PageMatrix, ordinal: int, tell: Progress, **options: Any) -> Engine:
    from morphogen.engine.cuda import CudaEngine

    return CudaEngine(pages, ordinal, progress=tell, **options)


def _free_memory(ordinal: int, contexts: list[Context]) -> int:
    try:
        context = open_context(ordinal)
        with context:
            free = context.free_memory()
    except DeviceError as error:
        raise named_error(f"cuda:{ordinal}", error) from error
    contexts.append(context)
    return free


def _share_threads(parts: int, threads: int | None) -> list[int]:
    """The threads of each part on the CPU."""
    if threads is None:
        total = max(parts, usable_cores().count)
    else:
        total = as_int("threads", threads)
        check_range(f"threads of {parts} engines on the CPU", total, parts)
    return [total // parts + (at < total % parts) for at in range(parts)]
