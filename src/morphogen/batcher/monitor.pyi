# Made by tools/release/make_stubs.py from the module's source.
"""The state that a batcher's threads share: its queue, and the chunks that have the engine.

Every method is one step, which no interrupt cuts in the middle.
"""

from threading import Thread
from typing import Any, SupportsIndex

from morphogen.batcher.entry import Entry
from morphogen.batcher.future import AnswerFuture
from morphogen.batcher.queue import WaitingQueue
from morphogen.batcher.statistics import BatcherStatistics
from morphogen.engine.base import Engine
from morphogen.engine.locks import Condition
from morphogen.query import Query

class Turn:
    """A chunk, and its turn at the engine, which the end of its ``with`` block gives back.

    Parameters
    ----------
    monitor : Monitor
    future, query
        A lone query: it gets the engine as the block begins, if nothing waits and it may run.

    Attributes
    ----------
    futures, queries : list
        Of the chunk.
    expired, refused : list
        Futures of queries that left the queue with it, since they had waited too long, or before
        it, for the room of others.
    taken : bool
        Whether it has the engine, or had it.
    answered : bool
        Whether the engine answered; set by the user.
    """

    @property
    def futures(self) -> list[Any]: ...
    @property
    def queries(self) -> list[Any]: ...
    @property
    def expired(self) -> list[Any]: ...
    @property
    def refused(self) -> list[Any]: ...
    @property
    def taken(self) -> bool: ...
    answered: bool
    def __init__(
        self, monitor: Monitor, future: AnswerFuture | None, query: Query | None
    ) -> None: ...
    def __enter__(self) -> Turn: ...
    def __exit__(self, *exception: object) -> None: ...

class Monitor:
    """The state that a batcher's threads share.

    Parameters
    ----------
    waiting : WaitingQueue
    engine : Engine
        For its number of replicas: only a full chunk is begun beside as many chunks.
    max_in_flight : int or None
        The most chunks under way at a time; None for as many as the engine takes.
    """

    @property
    def closed(self) -> bool: ...
    @property
    def changed(self) -> Condition: ...
    @property
    def max_in_flight(self) -> int: ...
    def __init__(
        self, waiting: WaitingQueue, engine: Engine, max_in_flight: SupportsIndex | None
    ) -> None: ...
    def max_queued(self) -> int:
        """The most queries that may wait."""
    def max_queued_per_client(self) -> int:
        """The most queries of a client that may wait."""
    def has_worker(self) -> bool:
        """Whether there is a thread that takes chunks out of the queue."""
    def needs_worker(self) -> bool:
        """Whether there is room for one more thread, and those there are have work."""
    def leaves_work(self) -> bool:
        """Whether one more thread could begin at once."""
    def check_room(self, client: str | None, count: int) -> None:
        """Refuse so many more queries, if the batcher is closed or its queue has no room."""
    def add(self, futures: list[AnswerFuture], entries: list[Entry]) -> None:
        """Queue queries of one client: all, or none and an error."""
    def leave(self, future: AnswerFuture) -> None:
        """Take a cancelled query out of the queue."""
    def expire(self, futures: list[AnswerFuture]) -> list[AnswerFuture]:
        """Take out those that still wait. The caller tells them that their time is up."""
    def next_turn(self) -> Turn | None:
        """Wait for queries and for the engine. None once the batcher is closed and all are out."""
    def abandon_turn(self) -> Turn | None:
        """The worker's turn that an error cut off, if it had one; it has ended then."""
    def add_worker(self, thread: Thread) -> bool:
        """Name a thread of the batcher. False if it has enough."""
    def remove_worker(self, thread: Thread) -> None:
        """Say that a thread of the batcher is about to end."""
    def shut(self) -> None:
        """Take no more queries. Those that were taken are still answered."""
    def close(self, timeout: float | None = None) -> bool:
        """Take no more queries, and wait until all that were taken are answered.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most. A thread that answers a chunk, or tells what came of one, does
            not wait for itself.

        Returns
        -------
        bool
            Whether all are answered.
        """
    def statistics(self) -> BatcherStatistics:
        """The counts so far, at one instant."""
    def _may_go_on(self) -> bool: ...
    def _is_busy(self) -> bool: ...
    def _is_done(self) -> bool: ...
