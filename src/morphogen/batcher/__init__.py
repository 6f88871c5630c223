"""Adaptive micro-batching: concurrent callers share passes over the pages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NoReturn, Self, SupportsIndex

from morphogen.batcher.entry import Entry, make_entries
from morphogen.batcher.future import AnswerFuture
from morphogen.batcher.monitor import Monitor, Turn
from morphogen.batcher.queue import WaitingQueue
from morphogen.batcher.statistics import BatcherStatistics
from morphogen.batcher.tasks import results
from morphogen.batcher.worker import expire, start_worker, tell_answered
from morphogen.checks import OwnerProcess
from morphogen.engine.base import Engine
from morphogen.errors import BatcherClosedError
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.query import Answer, Query, check_query

MAX_QUEUED = 1024


class MicroBatcher:
    """Lets many threads and tasks share an engine, and passes over its pages.

    There is no timer and nothing to tune: an idle engine starts a lone query at once, on the thread
    that submits it, and while a chunk runs, arrivals queue; the next chunk takes as many of them as
    fit. As many chunks run as the engine has replicas; beside them only full ones are begun, so
    that a device need not wait for the next. Clients take turns, and who asks for little goes
    first; the queries of one client, and all that name none, are served as they came.

    Parameters
    ----------
    engine : Engine
        The engine that answers. It stays the caller's: close it after the batcher.
    max_micro_batch : int, optional
        The most queries in a chunk, 1 to ``engine.widest_micro_batch``; by default
        ``engine.max_micro_batch``, and on the CPU more of queries with one or two keys.
    max_queued : int, optional
        The most queries that may wait, 1 or more. One more is refused with OverloadedError, or
        takes the place of another client's if more of that client's wait.
    max_queued_per_client : int, optional
        The most queries of a client that may wait, 1 to ``max_queued``; by default as many.
    max_in_flight : int, optional
        The most chunks under way at a time, 1 to ``engine.max_in_flight``; by default as many.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Notes
    -----
    Close it, or use it with ``with``: from the first query that had to wait, it has threads, up to
    `max_in_flight`, which also end once it is dropped and all that waits is answered. It cannot be
    used in a forked child. A callback of a future runs on the thread that answered it and holds up
    later chunks; it must not wait for another query.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen as mg
    >>> engine = mg.open_engine(mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8)), device="cpu")
    >>> query, _ = mg.make_query([3, 5, 7], num_pages=1000)
    >>> with engine, mg.MicroBatcher(engine) as batcher:
    ...     futures = [batcher.submit(query) for _ in range(4)]
    >>> futures[0].result().pages.shape
    (1, 3, 64)
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_micro_batch: int | None = None,
        max_queued: SupportsIndex = MAX_QUEUED,
        max_queued_per_client: SupportsIndex | None = None,
        max_in_flight: SupportsIndex | None = None,
    ) -> None:
        if not isinstance(engine, Engine):
            raise TypeError(f"engine must be an Engine, not {type(engine).__name__}")
        self._engine = engine
        self._num_pages = engine.table.num_pages
        widths = [engine.check_width(max_micro_batch, 1 + at) for at in range(MAX_KEYS_PER_QUERY)]
        self._widths = tuple(widths)
        # What was not asked for is the engine's to choose.
        self._asked = max_micro_batch if max_micro_batch is None else widths[0]
        self._owner = OwnerProcess("batcher", "make one in each process", BatcherClosedError)
        waiting = WaitingQueue(max_queued, max_queued_per_client, self._widths)
        self._monitor = Monitor(waiting, engine, max_in_flight)

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self._engine

    @property
    def max_micro_batch(self) -> int:
        """The most queries in a chunk, of queries with three keys."""
        return self._widths[-1]

    def width_for(self, keys_per_query: int) -> int:
        """The most queries in a chunk.

        Parameters
        ----------
        keys_per_query : int
            Keys of each of its queries, 1 to 3.

        Returns
        -------
        int
            Queries, 1 or more.
        """
        return self._widths[keys_per_query - 1]

    @property
    def max_queued(self) -> int:
        """The most queries that may wait."""
        return self._monitor.max_queued()

    @property
    def max_queued_per_client(self) -> int:
        """The most queries of a client that may wait."""
        return self._monitor.max_queued_per_client()

    @property
    def max_in_flight(self) -> int:
        """The most chunks under way at a time."""
        return self._monitor.max_in_flight

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._monitor.closed

    def check_usable(self) -> None:
        """Refuse, as every query, if this batcher or its engine takes none any more.

        Raises
        ------
        BatcherClosedError, EngineClosedError
            If it is closed, or belongs to the parent of this process.
        """
        self._check([])
        self._engine.check_usable()

    def check_room(self, count: int, client: str | None = None) -> None:
        """Refuse, as so many queries would be refused now.

        Parameters
        ----------
        count : int
            The number of queries.
        client : str, optional
            Whose they are.

        Raises
        ------
        OverloadedError, BatcherClosedError
            As from `submit`. They count as refused.
        """
        self._owner.check()
        self._monitor.check_room(client, count)

    def submit(
        self, query: Query, *, timeout: float | None = None, client: str | None = None
    ) -> Future[Answer]:
        """Have a query answered.

        On an idle engine it is answered before this returns, on this thread: that is the fastest
        way for a lone caller. Else it queues.

        Parameters
        ----------
        query : Query
            For the pages of the engine.
        timeout : float, optional
            Seconds that it may wait for its chunk. A chunk once begun is not broken off.
        client : str, optional
            Whose share of the queue it waits in: any name, such as an address.

        Returns
        -------
        concurrent.futures.Future of Answer
            An Answer with pages of shape (1, keys per query, page_size); its ``micro_batch_sizes``
            is the size of the chunk that it shared. The future can be cancelled while it waits, and
            raises DeadlineError if that took longer than timeout, OverloadedError if it had to go
            for queries of others, or what the engine raised.

        Raises
        ------
        OverloadedError
            If `max_queued` queries wait already, or too many of this client, or the system refuses
            to start a thread for those that wait.
        KeyDomainError
            If a key was made for another number of pages.
        BatcherClosedError
            If the batcher is closed, or belongs to the parent of this process.
        TypeError, ValueError
            If an argument has the wrong type or range.
        """
        entries = make_entries([query], timeout, client)
        self._check([query])
        future = AnswerFuture(self._monitor.leave)
        error: Exception | None = None
        with Turn(self._monitor, future, query) as turn:
            if turn.taken:
                future.claim()
                try:
                    answer = self._engine.answer([query], max_micro_batch=self._asked)
                    turn.answered = True
                except Exception as raised:
                    error = raised
        if not turn.taken:
            self._enqueue([future], entries)
        elif error is not None:
            future.tell(error)
        else:
            tell_answered(answer, [future])
        return future

    def submit_many(
        self,
        queries: Sequence[Query],
        *,
        timeout: float | None = None,
        client: str | None = None,
    ) -> list[Future[Answer]]:
        """Queue queries: all of them, or none.

        Parameters
        ----------
        queries : sequence of Query
            For the pages of the engine. Their numbers of keys may differ.
        timeout, client : optional
            As for `submit`.

        Returns
        -------
        list of concurrent.futures.Future of Answer
            As from `submit`, in order, but never answered on this thread. They may share chunks.

        Raises
        ------
        OverloadedError
            If fewer than ``len(queries)`` more may wait, or the system refuses to start a thread.
        KeyDomainError, BatcherClosedError, TypeError, ValueError
            As from `submit`.
        """
        return list(self._queue(queries, timeout, client))

    async def answer(
        self, query: Query, *, timeout: float | None = None, client: str | None = None
    ) -> Answer:
        """Have a query answered, from a task; the event loop goes on meanwhile.

        Parameters
        ----------
        query : Query
            For the pages of the engine.
        timeout, client : optional
            As for `submit`.

        Returns
        -------
        Answer
            As the future of `submit` has it. Cancelling the task takes the query out of the queue.

        Raises
        ------
        DeadlineError, OverloadedError, KeyDomainError, BatcherClosedError, TypeError, ValueError
            As from `submit` and its future; or what the engine raised.
        """
        return (await self.answer_many([query], timeout=timeout, client=client))[0]

    async def answer_many(
        self,
        queries: Sequence[Query],
        *,
        timeout: float | None = None,
        client: str | None = None,
    ) -> list[Answer]:
        """Have queries answered, from a task: all of them, or none.

        Parameters
        ----------
        queries : sequence of Query
            As for `submit_many`.
        timeout, client : optional
            As for `submit`.

        Returns
        -------
        list of Answer
            In the order of the queries. If the task is cancelled or one query fails, those that
            still wait are taken out of the queue.

        Raises
        ------
        DeadlineError, OverloadedError, KeyDomainError, BatcherClosedError, TypeError, ValueError
            As from `submit_many` and its futures; or what the engine raised.
        """
        futures = self._queue(queries, timeout, client)
        timer = None
        if timeout is not None:
            # A query expires at once, not when the next chunk is formed: a chunk may run for long.
            timer = asyncio.get_running_loop().call_later(timeout, expire, self._monitor, futures)
        try:
            return await results(futures)
        finally:
            if timer is not None:
                timer.cancel()
            for future in futures:
                future.cancel()

    def statistics(self) -> BatcherStatistics:
        """The counts so far, at one instant.

        Returns
        -------
        BatcherStatistics
            Counts and sums since the batcher was made.

        Raises
        ------
        BatcherClosedError
            If the batcher belongs to the parent of this process.
        """
        self._owner.check()
        return self._monitor.statistics()

    def close(self, timeout: float | None = None) -> bool:
        """Take no more queries, and wait until all that were taken are answered.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; by default as long as it takes.

        Returns
        -------
        bool
            Whether all are answered. If not, they still will be; call again to wait on. A future's
            callback does not wait, nor does what the engine calls.
        """
        if not self._owner.is_current():
            return True
        return self._monitor.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"MicroBatcher({self._engine!r}, chunks of at most {self.max_micro_batch}{state})"

    def __reduce__(self) -> NoReturn:
        # A copy would share the queue and the thread, and go on when the batcher is closed.
        raise TypeError("a batcher cannot be copied or pickled: make one where it is used")

    def __del__(self) -> None:
        monitor = getattr(self, "_monitor", None)  # missing if an argument was refused
        if monitor is not None and self._owner.is_current() and not sys.is_finalizing():
            monitor.shut()

    def _check(self, queries: list[Query]) -> None:
        """Refuse a query that cannot be answered: it must not fail its whole chunk."""
        self._owner.check()
        if self.closed:
            raise BatcherClosedError("this batcher is closed")
        for query in queries:
            check_query(query, self._num_pages)

    def _queue(
        self, queries: Sequence[Query], timeout: float | None, client: str | None
    ) -> list[AnswerFuture]:
        queries = list(queries)
        entries = make_entries(queries, timeout, client)
        self._check(queries)
        # First, since futures cost more than a refusal.
        self._monitor.check_room(client, len(queries))
        futures = [AnswerFuture(self._monitor.leave) for _ in queries]
        self._enqueue(futures, entries)
        return futures

    def _enqueue(self, futures: list[AnswerFuture], entries: list[Entry]) -> None:
        """Queue all or none."""
        if futures and self._monitor.needs_worker():
            self._monitor.check_room(entries[0].client, len(entries))
            start_worker(self._monitor, self._engine, self._asked)
        self._monitor.add(futures, entries)
