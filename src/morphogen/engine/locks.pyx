"""Locks that no interrupt leaves taken.

A signal handler may raise between any two steps of Python code, as that of Ctrl-C does: also after
a lock was taken and before the ``try`` that gives it back, or within an ``__enter__`` written in
Python, as `threading.Condition` has one. Compiled code has no such steps, and neither has ``with``
around it.

A loop in that ``with`` has one: from CPython 3.12 on, a jump back to a loop's begin, to which a
condition leads, belongs to no ``with`` or ``try`` around the loop (python/cpython#108214). So such
a loop has a function of its own.
"""

import threading
from time import monotonic

cimport cython


@cython.final
cdef class Condition:
    """Like `threading.Condition`, over a lock that its holder may take again."""

    def __cinit__(self) -> None:
        self._lock = threading.RLock()
        self._waiters = []

    def __enter__(self) -> Condition:
        self._lock.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def acquire(self) -> bool:
        """Take the lock. For `concurrent.futures.wait`; all else uses ``with``."""
        taken: bool = self._lock.acquire()
        return taken

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    cdef bint is_owned(self) except -1:
        """Whether this thread has the lock."""
        return self._lock._is_owned()

    cdef object take_anyway(self):
        """Take the lock, even if interrupted. Returns the interrupt, to be raised afterwards."""
        interrupt = None
        while True:
            try:
                self._lock.acquire()
                return interrupt
            except BaseException as raised:
                interrupt = raised

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock up until `notify_all`, and take it again.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether it was notified in time.
        """
        return self._sleep(self._enlist(), timeout)

    def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait until something holds.

        Parameters
        ----------
        predicate : callable
            Tells whether it holds. Called with the lock held.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether it holds.
        """
        end = None if timeout is None else monotonic() + timeout
        while True:
            # Before the look at the state: a finalizer may change it on this very thread, and its
            # notification would be missed.
            waiter = self._enlist()
            try:
                holds = bool(predicate())
                left = None if end is None else end - monotonic()
                if not holds and (left is None or left > 0):
                    self._sleep(waiter, left)
                    continue
            finally:
                self._strike(waiter)
            return holds

    def notify_all(self) -> None:
        """Wake all that wait. The caller holds the lock."""
        waiters = self._waiters
        self._waiters = []
        for waiter in waiters:
            waiter.release()

    cdef object _enlist(self):
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        return waiter

    cdef int _strike(self, waiter) except -1:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        return 0

    cdef bint _sleep(self, waiter, timeout) except -1:
        state = self._lock._release_save()
        try:
            if timeout is None:
                return waiter.acquire()
            return waiter.acquire(True, min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        finally:
            # No signal handler runs in this one.
            self._lock._acquire_restore(state)
            self._strike(waiter)
