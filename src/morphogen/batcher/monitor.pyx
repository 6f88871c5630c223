"""The state that a batcher's threads share: its queue, and the chunks that have the engine.

Every method is one step, which no interrupt cuts in the middle.
"""

from time import monotonic

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

from morphogen.engine.locks cimport Condition

from morphogen.batcher.statistics import BatcherStatistics
from morphogen.checks import as_int, check_range
from morphogen.errors import BatcherClosedError, MorphogenError


@cython.final
cdef class Turn:
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
    waiting : WaitingQueue
    engine : Engine
        For its number of replicas: only a full chunk is begun beside as many chunks.
    max_in_flight : int or None
        The most chunks under way at a time; None for as many as the engine takes.
    """

    cdef readonly bint closed
    cdef readonly Condition changed
    cdef readonly Py_ssize_t max_in_flight
    cdef Py_ssize_t _replicas
    cdef object _waiting       # WaitingQueue
    cdef list _workers         # Threads, as long as they run
    cdef set _serving          # the idents of those that have a chunk, or tell of one
    cdef list _turns           # which have the engine
    cdef dict _sizes           # the number of chunks of each size that ran to their end
    cdef Py_ssize_t _answered
    cdef Py_ssize_t _failed
    cdef double _seconds

    def __cinit__(
        self, waiting: WaitingQueue, engine: Engine, max_in_flight: SupportsIndex | None
    ) -> None:
        most = engine.max_in_flight
        if max_in_flight is not None:
            most = as_int("max_in_flight", max_in_flight)
            check_range("max_in_flight", most, 1, engine.max_in_flight, where=engine.device)
        self.changed = Condition()
        self.max_in_flight = most
        self._replicas = min(most, engine.replicas)
        self._waiting = waiting
        self._workers = []
        self._serving = set()
        self._turns = []
        self._sizes = {}

    def max_queued(self) -> int:
        """The most queries that may wait."""
        return self._waiting.limit

    def max_queued_per_client(self) -> int:
        """The most queries of a client that may wait."""
        return self._waiting.limit_of_client

    def has_worker(self) -> bool:
        """Whether there is a thread that takes chunks out of the queue."""
        return len(self._workers) > 0

    def needs_worker(self) -> bool:
        """Whether there is room for one more thread, and those there are have work."""
        return len(self._serving) == len(self._workers) < self.max_in_flight

    def leaves_work(self) -> bool:
        """Whether one more thread could begin at once."""
        return self.needs_worker() and self._may_begin(len(self._waiting))

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
            if self._may_begin(len(self._waiting)):
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
        here = PyThread_get_thread_ident()
        with self.changed:
            self._serving.discard(here)
            self.changed.wait_for(self._may_go_on)
            self._serving.add(here)
            if not self._waiting:
                return None
            turn.begin()
            self._turns.append(turn)
            self._waiting.next_chunk(turn)
            if not turn.futures:
                self._turns.remove(turn)
                self.changed.notify_all()  # close() may wait for just that
            return turn

    def abandon_turn(self) -> Turn | None:
        """The worker's turn that an error cut off, if it had one; it has ended then."""
        cdef Turn turn
        with self.changed:
            turn = self._turn_here()
        if turn is not None:
            self.end(turn)
        return turn

    def add_worker(self, thread: Thread) -> bool:
        """Name a thread of the batcher. False if it has enough."""
        with self.changed:
            if not self.needs_worker():
                return False
            self._workers.append(thread)
            return True

    def remove_worker(self, thread: Thread) -> None:
        """Say that a thread of the batcher is about to end."""
        with self.changed:
            self._workers.remove(thread)
            self._serving.discard(thread.ident)
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
        here = PyThread_get_thread_ident()
        self.shut()
        with self.changed:
            workers = list(self._workers)
            if here in [worker.ident for worker in workers]:
                return not self._is_busy()
            if self._turn_here() is not None:
                return False
            done = self.changed.wait_for(self._is_done, timeout)
        if done:
            for worker in workers:
                worker.join()
        return done

    def statistics(self) -> BatcherStatistics:
        """The counts so far, at one instant."""
        with self.changed:
            return BatcherStatistics(
                queued=len(self._waiting),
                running=sum([len(turn.futures) for turn in self._turns]),
                in_flight=len(self._turns),
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
        """Let a lone query have the engine, if nothing waits and it may run."""
        self._refuse_itself()
        with self.changed:
            self._check_open()
            # What an engine runs may submit: its own call would be refused, and so it waits.
            if not self._waiting and self._may_begin(1) and self._turn_here() is None:
                turn.begin()
                self._turns.append(turn)
        return 0

    cdef int end(self, Turn turn) except -1:
        """Let the next chunk have the engine."""
        interrupt = self.changed.take_anyway()
        try:
            if turn in self._turns:
                self._turns.remove(turn)
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

    cdef bint _may_begin(self, Py_ssize_t waiting) except? -1:
        """Whether a chunk of so many that wait may begin."""
        cdef Py_ssize_t running = len(self._turns)
        if running < self._replicas:
            return waiting > 0
        # It would only wait on the device, where no other query can join it.
        return running < self.max_in_flight and waiting >= self._waiting.full

    cdef Turn _turn_here(self):
        """The turn that this thread has."""
        cdef Turn turn
        for turn in self._turns:
            if turn.is_here():
                return turn
        return None

    def _may_go_on(self) -> bool:
        waiting = len(self._waiting)
        return self._may_begin(waiting) or (self.closed and waiting == 0)

    def _is_busy(self) -> bool:
        return len(self._turns) > 0 or len(self._waiting) > 0

    def _is_done(self) -> bool:
        return len(self._workers) == 0 and not self._is_busy()
