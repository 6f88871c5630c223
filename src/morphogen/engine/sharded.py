"""The sharded engine: shards answer over their ranges of a table, and it adds their parts up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_int, check_range, check_seconds
from morphogen.engine.base import Engine
from morphogen.engine.locks import Condition
from morphogen.engine.shards.checks import check_shards
from morphogen.engine.shards.epochs import close_all, open_next
from morphogen.engine.shards.replicas import Replicas
from morphogen.engine.shards.scatter import Clock, Scatter
from morphogen.engine.shards.statistics import ShardStatistics as ShardStatistics, Tally
from morphogen.engine.shards.transport import (
    WORD_BYTES,
    Part as Part,
    Pass as Pass,
    ShardTransport as ShardTransport,
)
from morphogen.engine.strategy import Choices, Strategy
from morphogen.errors import ShardUnavailableError
from morphogen.pages import PageMatrix, TableShape, check_changes, check_epoch
from morphogen.planner import MAX_KEYS_PER_QUERY, KeyPacker
from morphogen.sharding import ShardRange

MAX_MICRO_BATCH = 32


class ShardedEngine(Engine):
    """Answers over shards, each of which has a range of the table's pages, and replicas of it.

    All shards get the same keys. The answer is the XOR of one part of each: where one is missing,
    there is no answer.

    Parameters
    ----------
    shards : sequence of sequence of ShardTransport
        Of each range, in order: the ways to its replicas. They become the engine's, which closes
        them, unless it refuses them.
    shape : TableShape
        Of the whole table.
    timeout : float, optional
        Seconds that a pass may take, with all retries. By default as long as replicas take, each of
        which is then asked once.
    hedge : float, optional
        Seconds after which a pass is also submitted to another replica, from when a replica began
        it. By default never.
    device : str, optional
        The engine's device, for messages.
    pages : PageMatrix, optional
        The pages that all shards have together, if they are at hand: a whole table or a slice of
        one.
    root : bytes, optional
        Root of the authenticated table.
    max_micro_batch : int, optional
        The most queries of three keys that share a pass over all shards, 1 or more.
    clock : Clock, optional
        Tells the time, and waits.

    Raises
    ------
    ShardMismatchError
        If a shard has another page size, epoch, number of pages or root.
    TypeError, ValueError
        If an argument has the wrong type or range, or the shards' ranges are not all pages, each
        once, in order.
    """

    passes_at_a_replica = 1  # that it may have at a time: one runs, and the others wait

    def __init__(
        self,
        shards: Sequence[Sequence[ShardTransport]],
        shape: TableShape,
        *,
        timeout: float | None = None,
        hedge: float | None = None,
        device: str = "shards",
        pages: PageMatrix | None = None,
        root: bytes | None = None,
        max_micro_batch: SupportsIndex = MAX_MICRO_BATCH,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(shape, TableShape):
            raise TypeError(f"shape must be a TableShape, not {type(shape).__name__}")
        for name, seconds in (("timeout", timeout), ("hedge", hedge)):
            if seconds is not None:
                check_seconds(name, seconds, above_zero=True)
        width = as_int("max_micro_batch", max_micro_batch)
        check_range("max_micro_batch", width, 1)
        if pages is not None and pages.table != shape:
            raise ValueError(f"pages must be of {shape}, not of {pages.table}")
        self._cover = ShardRange(0, shape.num_pages)
        if pages is not None:
            self._cover = ShardRange(pages.first, pages.num_pages)
        self._ranges = check_shards(shards, shape, root, self._cover)
        default = Strategy(width, lanes=1, graph=False, keys=width * MAX_KEYS_PER_QUERY)
        self._fewest = min(map(len, shards))
        choices = Choices(device, default, widest=width)
        in_flight = self._fewest * self.passes_at_a_replica
        super().__init__(shape, choices, pages, max_in_flight=in_flight)
        self._root = root
        self._timeout = timeout
        self._hedge = hedge
        self._clock = Clock() if clock is None else clock
        self._numbers = itertools.count()
        self._replicas = Replicas(shards, hedge, self._clock.now, Tally())
        self._running: set[Scatter] = set()
        self._switching = Condition()  # from one epoch's replicas to those of the next

    @property
    def replicas(self) -> int:
        """The fewest replicas that a shard has: calls that run at a time, each on others."""
        return self._fewest

    @property
    def root(self) -> bytes | None:
        """Root of the authenticated table, if it is one."""
        return self._root

    @property
    def shards(self) -> tuple[tuple[ShardTransport, ...], ...]:
        """Of each range, in order: the ways to its replicas. They stay the engine's."""
        return self._replicas.shards

    @property
    def ranges(self) -> tuple[ShardRange, ...]:
        """The pages of each shard, in order."""
        return self._ranges

    def statistics(self) -> ShardStatistics:
        """What passes came to so far.

        Returns
        -------
        ShardStatistics
            With gaps that have not ended.

        Raises
        ------
        EngineClosedError
            If the engine belongs to the parent of this process.
        """
        self._owner.check()
        return self._replicas.statistics()

    def replace_replica(
        self, shard: SupportsIndex, at: SupportsIndex, transport: ShardTransport
    ) -> None:
        """Put another replica in the place of one, such as one that has died.

        Passes that the old one has under way go to others at once, and those that wait for a
        replica of this shard find the new one. The old transport is closed. If `replace_pages` runs
        meanwhile, the new one goes on to that epoch too, or is refused if it came too late.

        Parameters
        ----------
        shard, at : int
            The shard's number, and the replica's in it.
        transport : ShardTransport
            The way to the new one. It stays the caller's if it is refused.

        Raises
        ------
        EngineClosedError
            If the engine is closed, or belongs to the parent of this process.
        ShardMismatchError
            If it has another page size, epoch, number of pages or root.
        TypeError, ValueError
            If there is no such replica, or the new one has another range.
        """
        self.check_usable()
        number, place = as_int("shard", shard), as_int("at", at)
        check_range("shard", number, 0, len(self._ranges) - 1)
        check_range("at", place, 0, len(self._replicas.places[number]) - 1)
        while True:
            replicas, table, root = self._replicas, self._table, self._root
            check_shards([[transport]], table, root, self._ranges[number])
            if any(transport is one for some in replicas.shards for one in some):
                raise ValueError(f"{transport.name} must be one replica of one shard, not two")
            with self._switching:
                if self._replicas is replicas:  # else it is for another epoch meanwhile
                    before, attempts = replicas.replace(number, place, transport)
                    break
        for attempt in attempts:
            attempt.tell(ShardUnavailableError(f"{before.name} was replaced"))
        for scatter in tuple(self._running):
            scatter.wake()
        before.close()
        if self._closed:  # meanwhile, and perhaps without the new one
            transport.close()

    def replace_pages(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
        root: bytes | None = None,
    ) -> None:
        """Go on with changed pages, on all shards or on none.

        Parameters
        ----------
        indices : iterable of int
            The pages that change, ascending, each once. There may be none.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes. They are copied.
        epoch : int
            The new version, another than that of the pages before.
        root : bytes, optional
            Root of the table of that epoch, if it is authenticated.

        Raises
        ------
        ShardUnavailableError
            If no replica of a shard can go on. The engine goes on with the pages before.
        EngineClosedError, MorphogenError, TypeError, ValueError, MemoryError, OSError
            As from `Engine.replace_pages`.
        """
        number, changed = self._check_change(indices, pages, epoch)
        while not self._switch(number, changed, pages, root):
            pass  # another thread has replaced pages, or a replica: change those

    def next_epoch(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
        root: bytes | None = None,
    ) -> ShardedEngine:
        """Open an engine over changed pages, beside this one, on the same shards.

        Parameters
        ----------
        indices : iterable of int
            The pages that change, ascending, each once. There may be none.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes. They are copied.
        epoch : int
            The new version, another than that of the pages before.
        root : bytes, optional
            Root of the table of that epoch, if it is authenticated.

        Returns
        -------
        ShardedEngine
            With the same options. A replica that cannot open the epoch is not usable in it. Close
            both.

        Raises
        ------
        ShardUnavailableError
            If no replica of a shard can open it.
        EngineClosedError, MorphogenError, TypeError, ValueError, MemoryError, OSError
            As from `Engine.next_epoch`.
        """
        number, changed = self._check_change(indices, pages, epoch)
        opened: list[list[ShardTransport]] = []
        try:
            after, matrix = self._open_after(number, changed, pages, root, opened)
            self.check_usable()  # it may have been closed meanwhile
            return type(self)(
                opened,
                after,
                timeout=self._timeout,
                hedge=self._hedge,
                device=self.device,
                pages=matrix,
                root=root,
                max_micro_batch=self.max_micro_batch,
                clock=self._clock,
            )
        except BaseException:
            close_all(opened)
            raise

    def _switch(
        self,
        epoch: int,
        changed: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        root: bytes | None,
    ) -> bool:
        """Go on with an epoch, unless the pages or a replica were replaced meanwhile."""
        opened: list[list[ShardTransport]] = []
        unused: Sequence[Sequence[ShardTransport]] = opened
        before, places = self._replicas, self._replicas.places
        shards = before.shards
        try:
            after, matrix = self._open_after(epoch, changed, pages, root, opened)
            with self._calls.alone():
                self._check_open()
                try:
                    replicas = Replicas(opened, self._hedge, self._clock.now, before.tally)
                    with self._switching:
                        if self._replicas is before and before.places is places:
                            # No interrupt comes between these, nor after they were compared.
                            unused, self._replicas, self._table, self._pages, self._root = (
                                shards,
                                replicas,
                                after,
                                matrix,
                                root,
                            )
                finally:
                    self._end_call()
        finally:
            close_all(unused)
        return unused is shards

    def _check_change(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
    ) -> tuple[int, npt.NDArray[np.int64]]:
        self.check_usable()
        self._calls.check_free()
        number = check_epoch(epoch)
        return number, check_changes(indices, pages, self._cover.count, self._table.page_size)

    def _open_after(
        self,
        epoch: int,
        changed: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        root: bytes | None,
        opened: list[list[ShardTransport]],
    ) -> tuple[TableShape, PageMatrix | None]:
        """Open an epoch on all shards, beside the calls that run."""
        table, before = self._table, self._pages
        if epoch == table.epoch:
            raise ValueError(f"epoch must be another than that of the pages, {epoch}")
        matrix = None if before is None else before.with_changes(changed, pages, epoch)
        try:
            open_next(self._replicas.shards, self._cover, changed, pages, epoch, root, opened)
        except ShardUnavailableError:
            super().check_usable()  # or this is why
            raise
        return replace(table, epoch=epoch), matrix

    def _run(
        self,
        packer: KeyPacker,
        ranges: list[tuple[int, int]],
        out: npt.NDArray[np.uint8],
        strategy: Strategy,
    ) -> None:
        keys, per_query = packer.packed(), packer.keys_per_query
        size = packer.key_size * per_query
        self._scatter(
            (
                self._pass(keys[start * size : stop * size], stop - start, per_query),
                out[start:stop],
            )
            for start, stop in ranges
        )

    def _read(self) -> int:
        word = np.zeros((1, 1, WORD_BYTES), np.uint8)
        self._scatter([(self._pass(b"", 0, 1), word)])
        return int.from_bytes(word.tobytes(), "little")

    def _pass(self, keys: bytes, queries: int, keys_per_query: int) -> Pass:
        number, epoch = next(self._numbers), self._table.epoch
        return Pass(number, epoch, self._root, keys, queries, keys_per_query)

    def _scatter(self, jobs: Iterable[tuple[Pass, npt.NDArray[np.uint8]]]) -> None:
        scatter = Scatter(
            self._replicas,
            self._ranges,
            self._table.page_size,
            self._clock,
            self._timeout,
            self._hedge,
        )
        self._running.add(scatter)
        try:
            scatter.run(jobs, self.max_in_flight)
        finally:
            self._running.discard(scatter)

    def _release(self) -> None:
        close_all(self._replicas.shards)
