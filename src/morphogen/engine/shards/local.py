"""A shard in this process: an engine, and a thread that answers passes by it in order."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from morphogen.checks import OwnerProcess
from morphogen.engine.base import Engine
from morphogen.engine.named_errors import named_error
from morphogen.engine.shards.transport import Part, Pass, answer_pass
from morphogen.engine.threads import start_thread
from morphogen.errors import DeviceError, EngineClosedError
from morphogen.pages import TableShape
from morphogen.sharding import ShardRange

Job = tuple[Pass, Callable[[Part | Exception], None]]


class LocalShard:
    """A `morphogen.engine.shards.transport.ShardTransport` to an engine in this process.

    Parameters
    ----------
    engine : Engine
        Over the pages of the shard. It becomes the transport's, which closes it.
    root : bytes, optional
        Root of the authenticated table.
    held : ShardRange, optional
        The pages that the engine answers from; by default its pages.
    name : str, optional
        For messages; by default the engine's device.

    Raises
    ------
    DeviceError
        If the system refuses to start a thread.
    """

    def __init__(
        self,
        engine: Engine,
        root: bytes | None = None,
        *,
        held: ShardRange | None = None,
        name: str | None = None,
    ) -> None:
        if held is None:
            held = ShardRange(engine.pages.first, engine.pages.num_pages)
        self._engine = engine
        self._root = root
        self._range = held
        self._name = engine.device if name is None else name
        self._owner = OwnerProcess("shard", "open an engine in each process", EngineClosedError)
        self._worker = _Worker(engine, held, root, self._name)

    @property
    def name(self) -> str:
        """The engine's device, unless it was given another."""
        return self._name

    @property
    def range(self) -> ShardRange:
        """The pages that it answers for."""
        return self._range

    @property
    def table(self) -> TableShape:
        """The table that keys are for."""
        return self._engine.table

    @property
    def root(self) -> bytes | None:
        """Root of the authenticated table."""
        return self._root

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self._engine

    @property
    def usable(self) -> bool:
        """Whether neither it nor its engine is closed."""
        return not (self._worker.closed or self._engine.closed)

    def submit(self, job: Pass, tell: Callable[[Part | Exception], None]) -> None:
        """Have a pass answered after those that were submitted before.

        Parameters
        ----------
        job : Pass
            The pass.
        tell : callable
            Called on the shard's thread with the part, or the error.

        Raises
        ------
        EngineClosedError
            If this is closed, or belongs to the parent of this process.
        """
        self._owner.check()
        if self._worker.closed:
            raise EngineClosedError(f"the shard on {self._name} is closed")
        self._worker.put(job, tell)

    def next_epoch(
        self,
        indices: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        epoch: int,
        root: bytes | None = None,
    ) -> LocalShard:
        """Open the next epoch beside this one, by `Engine.next_epoch`.

        Parameters
        ----------
        indices : numpy.ndarray
            int64, ascending: the pages that change, counted from the first of `range`.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes.
        epoch : int
            The new version.
        root : bytes, optional
            Root of the table of that version.

        Returns
        -------
        LocalShard
            With a thread of its own.

        Raises
        ------
        EngineClosedError, DeviceError, TypeError, ValueError, MemoryError, OSError
            As from `Engine.next_epoch`.
        """
        try:
            engine = self._engine.next_epoch(indices, pages, epoch)
        except DeviceError as error:
            raise named_error(self._name, error) from error
        try:
            return LocalShard(engine, root, held=self._range, name=self._name)
        except BaseException:
            engine.close()
            raise

    def close(self) -> None:
        """Wait for the pass that runs, refuse those that wait, and close the engine."""
        if self._owner.is_current():
            self._worker.stop()
            self._engine.close()

    def __del__(self) -> None:
        # The thread has the engine, and not this: it ends, and the engine with it.
        if hasattr(self, "_worker"):
            self._worker.queue.put(None)

    def __repr__(self) -> str:
        state = "" if self.usable else ", closed"
        return f"LocalShard({self._range} on {self._name}{state})"


class _Worker:
    """The thread of a shard, and its queue."""

    def __init__(self, engine: Engine, held: ShardRange, root: bytes | None, name: str) -> None:
        self.queue: SimpleQueue[Job | None] = SimpleQueue()
        self.closed = False
        self._owner = OwnerProcess("shard", "open an engine in each process", EngineClosedError)
        self._running = threading.Lock()  # the thread has it
        self._thread = 0

        def work(ready: Callable[[], None]) -> None:
            with self._running:
                self._thread = threading.get_ident()
                # A thread inside an engine while the interpreter goes down would be a crash.
                atexit.register(self.stop)
                ready()
                try:
                    self._work(engine, held, root, name)
                finally:
                    atexit.unregister(self.stop)

        try:
            start_thread(work, "morphogen-shard")
        except RuntimeError as error:
            raise DeviceError(f"cannot start a thread for a shard: {error}") from None

    def put(self, job: Pass, tell: Callable[[Part | Exception], None]) -> None:
        """Have a pass answered."""
        self.queue.put((job, tell))
        if self.closed:  # meanwhile, and the thread may have ended before
            self.stop()

    def stop(self) -> None:
        """End the thread after the pass that runs, and refuse those that wait."""
        if not self._owner.is_current():  # a fork, at its exit: it has the lock, and not the thread
            return
        self.closed = True
        self.queue.put(None)
        if self._thread == threading.get_ident():
            return
        with self._running:
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        while not self.queue.empty():
            if (item := self.queue.get()) is not None:
                item[1](_closed_early())

    def _work(self, engine: Engine, held: ShardRange, root: bytes | None, name: str) -> None:
        while (item := self.queue.get()) is not None:
            job, tell = item
            outcome: Part | Exception
            try:
                outcome = _closed_early() if self.closed else answer_pass(engine, job, held, root)
            except Exception as error:
                outcome = named_error(name, error)
            with suppress(Exception):  # of who asked: the thread goes on for others
                tell(outcome)
            del item, job, tell, outcome  # an idle thread keeps none


def _closed_early() -> EngineClosedError:
    return EngineClosedError("the shard was closed before it began this pass")
