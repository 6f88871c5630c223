"""Adaptive micro-batching: concurrent callers share passes over the pages."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Self, SupportsIndex

import morphogen.batcher.queue as waiting
from morphogen.batcher.statistics import BatcherStatistics, ChunkCounts
from morphogen.checks import OwnerProcess
from morphogen.engine.base import Engine
from morphogen.errors import BatcherClosedError
from morphogen.query import Answer, Query, check_query

MAX_QUEUED = 1024


class MicroBatcher:
    """Lets many threads and tasks share an engine, and passes over its pages.

    There is no timer and nothing to tune: an idle engine starts a lone query at once, on the thread
    that submits it, and while a chunk runs, arrivals queue; the next chunk takes as many of them as
    fit, first come first served.

    Parameters
    ----------
    engine : Engine
        The engine that answers. It stays the caller's: close it after the batcher.
    max_micro_batch : int, optional
        The most queries in a chunk, 1 to ``engine.widest_micro_batch``; by default
        ``engine.max_micro_batch``.
    max_queued : int, optional
        The most queries that may wait, 1 or more. One more is refused with OverloadedError.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Notes
    -----
    Close it, or use it with ``with``: from the first query that had to wait, it has a thread. It
    cannot be used in a forked child. A callback of a future runs on the thread that answered it and
    holds up later chunks; it must not wait for another query.

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
    ) -> None:
        if not isinstance(engine, Engine):
            raise TypeError(f"engine must be an Engine, not {type(engine).__name__}")
        self._engine = engine
        self._num_pages = engine.pages.num_pages
        self._width = engine.check_width(max_micro_batch)
        self._waiting = waiting.WaitingQueue(max_queued)
        self._changed = threading.Condition(threading.Lock())
        self._running = 0
        self._alone: Future[Answer] | None = None  # answered on the thread that submitted it
        self._closed = False
        self._thread: threading.Thread | None = None
        self._owner = OwnerProcess("batcher", "make one in each process", BatcherClosedError)
        self._counts = ChunkCounts()

    @property
    def engine(self) -> Engine:
        """The engine that answers."""
        return self._engine

    @property
    def max_micro_batch(self) -> int:
        """The most queries in a chunk."""
        return self._width

    @property
    def max_queued(self) -> int:
        """The most queries that may wait."""
        return self._waiting.limit

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_usable(self) -> None:
        """Refuse, as every query is refused, if this batcher or its engine takes none any more.

        Raises
        ------
        BatcherClosedError, EngineClosedError
            If it is closed, or belongs to the parent of this process.
        """
        self._owner.check()
        self._check([])
        self._engine.check_usable()

    def submit(self, query: Query, *, timeout: float | None = None) -> Future[Answer]:
        """Have a query answered.

        On an idle engine it is answered before this returns, on this thread: that is the fastest
        way for a lone caller. Else it queues.

        Parameters
        ----------
        query : Query
            For the pages of the engine.
        timeout : float, optional
            Seconds that it may wait for its chunk. A chunk once begun is not broken off.

        Returns
        -------
        concurrent.futures.Future of Answer
            An Answer with pages of shape (1, keys per query, page_size); its ``micro_batch_sizes``
            is the size of the chunk that it shared. The future can be cancelled while it waits, and
            raises DeadlineError if that took longer than timeout, or what the engine raised.

        Raises
        ------
        OverloadedError
            If `max_queued` queries wait already.
        KeyDomainError
            If a key was made for another number of pages.
        BatcherClosedError
            If the batcher is closed, or belongs to the parent of this process.
        TypeError, ValueError
            If an argument has the wrong type or range.
        """
        entries = waiting.make_entries([query], timeout)
        self._owner.check()
        future: Future[Answer] = Future()
        try:
            with self._changed:
                self._check([query])
                if self._running or self._waiting:
                    self._enqueue([future], entries)
                    return future
                self._alone = future
                self._running = 1
                future.set_running_or_notify_cancel()
            self._run([future], entries)
        finally:
            # Ctrl-C may come between any two steps: an engine that nobody frees serves nobody.
            if self._alone is future:
                with self._changed:
                    self._free()
        return future

    def submit_many(
        self, queries: Sequence[Query], *, timeout: float | None = None
    ) -> list[Future[Answer]]:
        """Queue queries: all of them, or none.

        Parameters
        ----------
        queries : sequence of Query
            For the pages of the engine. Their numbers of keys may differ.
        timeout : float, optional
            As for `submit`.

        Returns
        -------
        list of concurrent.futures.Future of Answer
            As from `submit`, in order, but never answered on this thread. They may share chunks.

        Raises
        ------
        OverloadedError
            If fewer than ``len(queries)`` more may wait.
        KeyDomainError, BatcherClosedError, TypeError, ValueError
            As from `submit`.
        """
        queries = list(queries)
        entries = waiting.make_entries(queries, timeout)
        self._owner.check()
        futures: list[Future[Answer]] = [Future() for _ in queries]
        with self._changed:
            self._check(queries)
            self._enqueue(futures, entries)
        return futures

    async def answer(self, query: Query, *, timeout: float | None = None) -> Answer:
        """Have a query answered, from a task; the event loop goes on meanwhile.

        Parameters
        ----------
        query : Query
            For the pages of the engine.
        timeout : float, optional
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
        return (await self.answer_many([query], timeout=timeout))[0]

    async def answer_many(
        self, queries: Sequence[Query], *, timeout: float | None = None
    ) -> list[Answer]:
        """Have queries answered, from a task: all of them, or none.

        Parameters
        ----------
        queries : sequence of Query
            As for `submit_many`.
        timeout : float, optional
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
        futures = self.submit_many(queries, timeout=timeout)
        timer = None
        if timeout is not None:
            # A query expires at once, not when the next chunk is formed: a chunk may run for long.
            timer = asyncio.get_running_loop().call_later(timeout, self._expire, futures)
        try:
            return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
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
        with self._changed:
            return BatcherStatistics(
                queued=len(self._waiting),
                running=self._running,
                chunk_sizes=dict(sorted(self._counts.sizes.items())),
                answered=self._counts.answered,
                failed=self._counts.failed,
                cancelled=self._waiting.cancelled,
                expired=self._waiting.expired,
                refused=self._waiting.refused,
                waiting_seconds=self._waiting.seconds,
                running_seconds=self._counts.seconds,
            )

    def close(self, timeout: float | None = None) -> bool:
        """Take no more queries, and wait until all that were taken are answered.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; by default as long as it takes.

        Returns
        -------
        bool
            Whether all are answered. If not, they still will be; call again to wait on.
        """
        if not self._owner.is_current():
            return True
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._thread is threading.current_thread():
                timeout = 0  # a future's callback: the thread cannot wait for itself
            done = self._changed.wait_for(lambda: not self._waiting and not self._running, timeout)
        if done and self._thread is not None and self._thread is not threading.current_thread():
            # It is about to end; until then it may be telling futures what came of them.
            self._thread.join()
            atexit.unregister(self.close)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"MicroBatcher({self._engine!r}, chunks of at most {self._width}{state})"

    def _check(self, queries: list[Query]) -> None:
        """Refuse a query that cannot be answered: it must not fail its whole chunk."""
        if self._closed:
            raise BatcherClosedError("this batcher is closed")
        for query in queries:
            check_query(query, self._num_pages)

    def _enqueue(self, futures: list[Future[Answer]], entries: list[waiting.Entry]) -> None:
        """Queue all or none. Holds the lock."""
        self._waiting.check_room(len(futures))
        if futures and self._thread is None:
            thread = threading.Thread(target=self._work, name="morphogen-batcher", daemon=True)
            thread.start()
            self._thread = thread
            # A thread inside the engine while the interpreter goes down would be a crash.
            atexit.register(self.close)
        self._waiting.add(futures, entries)
        for future in futures:
            future.add_done_callback(self._leave)
        if not self._running:
            self._changed.notify_all()

    def _leave(self, future: Future[Answer]) -> None:
        """Take a cancelled query out of the queue. Called for every future when it is done."""
        if future.cancelled():
            with self._changed:
                self._waiting.discard_cancelled(future)
                self._changed.notify_all()

    def _expire(self, futures: list[Future[Answer]]) -> None:
        """Fail those that still wait: their time is up."""
        with self._changed:
            late = self._waiting.expire(futures)
            self._changed.notify_all()
        waiting.tell_expired(late)

    def _free(self) -> None:
        """Let the next chunk have the engine. Holds the lock."""
        self._alone = None
        self._running = 0
        self._changed.notify_all()

    def _work(self) -> None:
        """Run chunk after chunk until the batcher is closed and its queue empty."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: not self._running and (self._waiting or self._closed)
                )
                if not self._waiting:
                    return
                futures, entries, expired = self._waiting.next_chunk(self._width)
                self._running = len(futures)
                if not futures:
                    self._changed.notify_all()  # all were too late, and close() may wait for that
            waiting.tell_expired(expired)
            if futures:
                self._run(futures, entries)

    def _run(self, futures: list[Future[Answer]], entries: list[waiting.Entry]) -> None:
        """Answer a chunk on this thread, free the engine for the next, tell the futures."""
        chunk: Answer | None = None
        error: BaseException | None = None
        started = monotonic()
        try:
            chunk = self._engine.answer([e.query for e in entries], max_micro_batch=self._width)
        except BaseException as raised:
            error = raised
        with self._changed:
            self._counts.add(len(futures), monotonic() - started, failed=chunk is None)
            self._free()
        if chunk is None:
            assert error is not None
            waiting.tell_failed(error, futures)
            if not isinstance(error, Exception) and threading.current_thread() is not self._thread:
                raise error  # Ctrl-C on the thread that submitted
            return
        waiting.tell_answered(chunk, futures)
