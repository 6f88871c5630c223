"""The state that a batcher's threads share: its queue, and the chunk that has the engine.

Every method is one step, which no interrupt cuts in the middle.
"""

from time import monotonic

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

from morphogen.engine.locks cimport Condition

from morphogen.batcher.queue import WaitingQueue
from morphogen.batcher.statistics import BatcherStatistics
from morphogen.errors import BatcherClosedError, MorphogenError


@cython.final
cdef class Turn:
    """A chunk, and its turn at the engine: the end of its ``with`` block frees the engine.

    Parameters
    ----------
    monitor : Monitor
    future, query
        A lone query: it gets the engine as the block begins, if nothing runs and nothing waits.

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

    cdef readonly list futures
    cdef readonly list queries
    cdef readonly list expired
    cdef readonly list refused
    cdef readonly bint taken
    cdef public bint answered
    cdef Monitor _monitor
    cdef unsigned long _thread
    cdef double _begun

    def __cinit__(self, Monitor monitor, future: AnswerFuture | None, query: Query | None) -> None:
        self._monitor = monitor
        self.futures = [] if future is None else [future]
        self.queries = [] if query is None else [query]
        self.expired = []
        self.refused = []

    def __enter__(self) -> Turn:
        if not self.taken:
            self._monitor.take(self)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.taken:
            self._monitor.end(self)

    cdef int begin(self) except -1:
        self.taken = True
        self._thread = <unsigned long>PyThread_get_thread_ident()
        self._begun = monotonic()
        return 0

    cdef bint is_here(self) noexcept:
        return self._thread == <unsigned long>PyThread_get_thread_ident()


@cython.final
cdef class Monitor:
    """The state that a batcher's threads share.

    Parameters
    ----------
    max_queued, max_queued_per_client : int
        The most queries that may wait, 1 or more, and the most of a client; None for as many.
    widths : tuple of int
        The most queries in a chunk, of queries with 1, 2 and 3 keys.
    """

    cdef readonly bint closed
    cdef readonly Condition changed
    cdef object _waiting       # WaitingQueue
    cdef object _worker        # its Thread, as long as it runs
    cdef Turn _turn            # which has the engine
    cdef dict _sizes           # the number of chunks of each size that ran to their end
    cdef Py_ssize_t _answered
    cdef Py_ssize_t _failed
    cdef double _seconds

    def __cinit__(
        self, max_queued: SupportsIndex, max_queued_per_client: SupportsIndex | None,
        widths: tuple[int, ...],
    ) -> None:
        self.changed = Condition()
        self._waiting = WaitingQueue(max_queued, max_queued_per_client, widths)
        self._sizes = {}

    def max_queued(self) -> int:
        """The most queries that may wait."""
        return self._waiting.limit

    def max_queued_per_client(self) -> int:
        """The most queries of a client that may wait."""
        return self._waiting.limit_of_client

    def has_worker(self) -> bool:
        """Whether there is a thread that takes chunks out of the queue."""
        return self._worker is not None

    def check_room(self, client: str | None, count: int) -> None:
        """Refuse so many more queries, if the batcher is closed or its queue has no room."""
        self._refuse_itself()
        with self.changed:
            self._check_open()
            self._waiting.check_room(client, count)

    def add(self, futures: list[AnswerFuture], entries: list[Entry]) -> None:
        """Queue queries of one client: all, or none and an error."""
        self._refuse_itself()
        with self.changed:
            self._check_open()
            if entries:
                self._waiting.check_room(entries[0].client, len(entries))
            self._waiting.add(futures, entries)
            if self._turn is None:
                self.changed.notify_all()

    def leave(self, future: AnswerFuture) -> None:
        """Take a cancelled query out of the queue."""
        if self.changed.is_owned():
            return  # by a finalizer, amid another step: it leaves when its chunk is formed
        with self.changed:
            self._waiting.discard_cancelled(future)
            self.changed.notify_all()

    def expire(self, futures: list[AnswerFuture]) -> list[AnswerFuture]:
        """Take out those that still wait. The caller tells them that their time is up."""
        self._refuse_itself()
        with self.changed:
            late = self._waiting.expire(futures)
            self.changed.notify_all()
            return late

    def next_turn(self) -> Turn | None:
        """Wait for queries and for the engine. None once the batcher is closed and all are out."""
        cdef Turn turn = Turn(self, None, None)
        with self.changed:
            self.changed.wait_for(self._may_go_on)
            if not self._waiting:
                return None
            turn.begin()
            self._turn = turn
            self._waiting.next_chunk(turn)
            if not turn.futures:
                self._turn = None
                self.changed.notify_all()  # close() may wait for just that
            return turn

    def abandon_turn(self) -> Turn | None:
        """The worker's turn that an error cut off, if it had one; the engine is free then."""
        cdef Turn turn
        with self.changed:
            turn = self._turn
            if turn is None or not turn.is_here():
                return None
        self.end(turn)
        return turn

    def add_worker(self, thread: Thread) -> bool:
        """Name the batcher's thread. False if it has one."""
        with self.changed:
            if self._worker is not None:
                return False
            self._worker = thread
            return True

    def remove_worker(self) -> None:
        """Say that the batcher's thread is about to end."""
        with self.changed:
            self._worker = None
            self.changed.notify_all()

    def shut(self) -> None:
        """Take no more queries. Those that were taken are still answered."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

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
        worker = self._worker
        here = PyThread_get_thread_ident()
        self.shut()
        if worker is not None and worker.ident == here:
            return not self._is_busy()
        if self._turn is not None and self._turn.is_here():
            return False
        with self.changed:
            done = self.changed.wait_for(self._is_done, timeout)
        if done and worker is not None:
            worker.join()
        return done

    def statistics(self) -> BatcherStatistics:
        """The counts so far, at one instant."""
        with self.changed:
            return BatcherStatistics(
                queued=len(self._waiting),
                running=0 if self._turn is None else len(self._turn.futures),
                chunk_sizes=dict(sorted(self._sizes.items())),
                answered=self._answered,
                failed=self._failed,
                cancelled=self._waiting.cancelled,
                expired=self._waiting.expired,
                refused=self._waiting.refused,
                waiting_seconds=self._waiting.seconds,
                running_seconds=self._seconds,
            )

    cdef int take(self, Turn turn) except -1:
        """Let a lone query have the engine, if nothing runs and nothing waits."""
        self._refuse_itself()
        with self.changed:
            self._check_open()
            if self._turn is None and not self._waiting:
                turn.begin()
                self._turn = turn
        return 0

    cdef int end(self, Turn turn) except -1:
        """Let the next chunk have the engine."""
        interrupt = self.changed.take_anyway()
        try:
            if self._turn is turn:
                self._turn = None
                self.changed.notify_all()
                self._count(turn)
        finally:
            self.changed.release()
        if interrupt is not None:
            raise interrupt
        return 0

    cdef int _count(self, Turn turn) except -1:
        cdef Py_ssize_t size = len(turn.futures)
        self._seconds += monotonic() - turn._begun
        if turn.answered:
            self._answered += size
            self._sizes[size] = self._sizes.get(size, 0) + 1
        else:
            self._failed += size
        return 0

    cdef int _check_open(self) except -1:
        if self.closed:
            raise BatcherClosedError("this batcher is closed")
        return 0

    cdef int _refuse_itself(self) except -1:
        if self.changed.is_owned():
            raise MorphogenError("a batcher cannot be used by a finalizer that interrupted it")
        return 0

    def _may_go_on(self) -> bool:
        return self._turn is None and (self.closed or len(self._waiting) > 0)

    def _is_busy(self) -> bool:
        return self._turn is not None or len(self._waiting) > 0

    def _is_done(self) -> bool:
        return self._worker is None and not self._is_busy()
