"""The epochs of a table that a service answers for side by side, and the end of those before.

A *generation* is what serves one epoch: its pages, their engine, the batcher before it, and what
the server says of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from msgspec.structs import replace

from morphogen.authentication import num_cap_nodes
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.batcher import MicroBatcher
from morphogen.batcher.statistics import BatcherStatistics
from morphogen.checks import as_int, check_range
from morphogen.engine.base import Engine
from morphogen.engine.shards.statistics import ShardStatistics
from morphogen.engine.threads import start_thread
from morphogen.errors import BatcherClosedError
from morphogen.pages import PageMatrix
from morphogen.service.shards import shards_of, together
from morphogen.wire import TableInfo, WireConflictError

KEEP = 2
MAX_KEPT = 16  # clients read no longer list
# What clients settled on when they asked for `/epoch`, and what queues and memory are made for.
_SHAPE = ("party", "page_size", "keys_per_query")


class Generation:
    """What serves one epoch.

    Parameters
    ----------
    info : TableInfo
        From `describe_table`.
    engine : Engine or None
        Closed after the batcher; None if whoever made it closes it.
    batcher : MicroBatcher
        Of the engine.
    cap : bytes-like, optional
        Of authenticated pages: the nodes of their tree's cap, one after the other. It is not
        copied, however many clients take it.
    manifest : bytes, optional
        What the table's owner signed of this epoch.
    pages : PageMatrix, optional
        All of them, for whoever makes the next epoch of these. An engine need not hold them.

    Attributes
    ----------
    info : TableInfo
        With the manifest.
    engine : Engine or None
    batcher : MicroBatcher
    cap : memoryview or None
        Its bytes.
    manifest : bytes or None
    pages : PageMatrix or None

    Raises
    ------
    ValueError
        If the pages are authenticated and there is no cap, or the other way round, or the cap has
        another length.
    """

    def __init__(
        self,
        info: TableInfo,
        engine: Engine | None,
        batcher: MicroBatcher,
        cap: bytes | memoryview | None = None,
        manifest: bytes | None = None,
        pages: PageMatrix | None = None,
    ) -> None:
        if manifest is not None:
            info = replace(info, manifest=manifest.hex())
        self.info: TableInfo = info
        self.engine: Engine | None = engine
        self.batcher: MicroBatcher = batcher
        self.cap: memoryview | None = _check_cap(cap, info)
        self.manifest: bytes | None = manifest
        self.pages: PageMatrix | None = pages

    def close(self) -> None:
        """Take no more queries; once all that were taken are answered, close the engine."""
        try:
            self.batcher.close()
        finally:
            if self.engine is not None:
                self.engine.close()


def _check_cap(cap: bytes | memoryview | None, info: TableInfo) -> memoryview | None:
    if cap is None:
        if info.root is not None:
            raise ValueError("authenticated pages need their cap: info has a root")
        return None
    if info.root is None or info.proof_levels is None:
        raise ValueError("a cap belongs to authenticated pages: info has no root")
    nodes = memoryview(cap).cast("B")
    expected = HASH_BYTES * num_cap_nodes(info.num_pages, info.proof_levels)
    if nodes.nbytes != expected:
        raise ValueError(f"the cap of these pages has {expected} bytes, not {nodes.nbytes}")
    return nodes


class Generations:
    """The generations of one table: the current one, and those before it that are still held.

    Each has a queue of its own. So a client may have its share of the queue in each; but as long as
    the current one has no room for it, the service refuses it before it reads for which epoch it
    asks.

    Parameters
    ----------
    first : Generation
        The current one, until another is published.
    keep : int, optional
        The most that are held, 1 to 16.

    Raises
    ------
    TypeError, ValueError
        If keep has the wrong type or is out of range.
    """

    def __init__(self, first: Generation, keep: int = KEEP) -> None:
        check_range("keep", as_int("keep", keep), 1, MAX_KEPT)
        self._keep = keep
        self._held: tuple[Generation, ...] = (first,)
        self._changed = threading.Condition()
        self._retiring: dict[Generation, bool] = {}  # and whether somebody ends it
        self._closed = False
        self._ended: BatcherStatistics | None = None  # the sums of those that have ended
        self._ended_shards: ShardStatistics | None = None
        self._width = _width(first)

    @property
    def held(self) -> tuple[Generation, ...]:
        """All that answer, the current one first. The same object until that changes."""
        return self._held

    @property
    def current(self) -> Generation:
        """The one of the highest epoch."""
        return self._held[0]

    @property
    def width(self) -> int:
        """The most queries in a chunk of any generation so far."""
        return self._width

    def pick(self, epoch_id: int | None) -> Generation:
        """The generation that a request asks for.

        Parameters
        ----------
        epoch_id : int or None
            As the request has it; None for the current one.

        Returns
        -------
        Generation
            The one of that epoch.

        Raises
        ------
        WireConflictError
            If none that is held has this epoch.
        """
        held = self._held
        if epoch_id is None:
            return held[0]
        for generation in held:
            if generation.info.epoch_id == epoch_id:
                return generation
        ours = " or ".join(str(generation.info.epoch_id) for generation in held)
        raise WireConflictError(f"the table's epoch_id is {ours}, not {epoch_id}", "epoch_id")

    async def publish(self, generation: Generation) -> None:
        """Make a generation the current one.

        The oldest ones fall out, so that no more are held than may be. Each ends on a thread beside
        the event loop, once all it took is answered; this does not wait for it.

        Parameters
        ----------
        generation : Generation
            Of a higher epoch than the current one's. It stays the caller's if it is refused.

        Raises
        ------
        ValueError
            If its epoch is not higher, or it is of another party, with pages of another size, of
            another kind, or for queries of another number of keys.
        BatcherClosedError
            If all were closed.
        """
        with self._changed:
            if self._closed:
                raise BatcherClosedError("the service takes no new epoch: it is shutting down")
            _check_successor(generation.info, self.current.info)
            held = (generation, *self._held)
            self._width = max(self._width, _width(generation))
            self._retiring |= dict.fromkeys(held[self._keep :], False)
            self._held = held[: self._keep]
        self._retire()

    def statistics(self) -> BatcherStatistics:
        """The counts of all generations so far, of those that have ended too.

        Returns
        -------
        BatcherStatistics
            Sums. No count is ever less than before.

        Raises
        ------
        BatcherClosedError
            If a batcher belongs to the parent of this process.
        """
        with self._changed:
            total = self._ended
            for generation in (*self._held, *self._retiring):
                now = generation.batcher.statistics()
                total = now if total is None else total + now
        assert total is not None
        return total

    def shards(self) -> ShardStatistics | None:
        """What the shards of all generations did so far, of those that have ended too.

        Returns
        -------
        ShardStatistics or None
            Sums, with the replicas of the current one; None if its engine has no shards.

        Raises
        ------
        EngineClosedError
            If an engine belongs to the parent of this process.
        """
        with self._changed:
            total = self._ended_shards
            for generation in (*self._retiring, *reversed(self._held)):
                total = together(total, shards_of(generation.batcher.engine))
        return total

    def wait_retired(self, timeout: float | None = None) -> bool:
        """Wait until all that fell out have ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; by default as long as it takes.

        Returns
        -------
        bool
            Whether they have.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._retiring, timeout)

    def shut(self) -> None:
        """Let none take more queries, without waiting for what they took."""
        with self._changed:
            self._closed = True
            living = (*self._held, *self._retiring)
        for generation in living:
            generation.batcher.close(timeout=0)

    def close(self) -> None:
        """Let all take no more queries, and end once all they took is answered.

        May be called again.
        """
        self.shut()
        with ExitStack() as ending:  # one that fails keeps none from ending
            ending.callback(self.wait_retired)
            ending.callback(self._end, self._claim())
            for generation in self._held:
                ending.callback(generation.close)

    def _retire(self) -> None:
        """Begin to end those that fell out, on a thread of their own."""
        fallen = self._claim()

        def end(ready: Callable[[], None]) -> None:
            ready()
            self._end(fallen)

        try:
            if fallen:
                start_thread(end, "morphogen-retire")
        except RuntimeError:  # there is no thread now: with the next that falls out, or at the end
            with self._changed:
                self._retiring.update(dict.fromkeys(fallen, False))

    def _claim(self) -> list[Generation]:
        """Those that fell out, and that nobody ends yet."""
        with self._changed:
            fallen = self._unclaimed()
            self._retiring.update(dict.fromkeys(fallen, True))
            return fallen

    def _unclaimed(self) -> list[Generation]:
        return [one for one, claimed in self._retiring.items() if not claimed]

    def _end(self, fallen: list[Generation]) -> None:
        with ExitStack() as ending:
            for generation in fallen:
                ending.callback(self._forget, generation)
                ending.callback(generation.close)

    def _forget(self, generation: Generation) -> None:
        """Keep no more than the counts of one that has ended."""
        with self._changed:
            del self._retiring[generation]
            self._changed.notify_all()
            last = generation.batcher.statistics()
            self._ended = last if self._ended is None else self._ended + last
            shards = shards_of(generation.batcher.engine)
            self._ended_shards = together(self._ended_shards, shards)


def _check_successor(info: TableInfo, current: TableInfo) -> None:
    if info.epoch_id <= current.epoch_id:
        raise ValueError(
            f"the next epoch must be above {current.epoch_id}, the current one, not {info.epoch_id}"
        )
    for name in _SHAPE:
        was, now = getattr(current, name), getattr(info, name)
        if was != now:
            raise ValueError(f"the next epoch's {name} must be {was}, as it is now, not {now}")
    for name, what in (("table", "a keyword table"), ("root", "authenticated")):
        was, now = getattr(current, name) is not None, getattr(info, name) is not None
        if was != now:
            raise ValueError(
                f"the next epoch must be {'' if was else 'not '}{what}, as the current one is"
            )


def _width(generation: Generation) -> int:
    return generation.batcher.width_for(generation.info.keys_per_query)
