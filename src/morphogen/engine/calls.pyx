"""The calls that are under way in an engine: at most so many, each with something of its own.

No interrupt leaves a place taken: see `morphogen.engine.locks`. Steps between two calls of Python
are not cut by other threads either, so that a call which need not wait takes no lock.
"""

import threading

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from posix.unistd cimport getpid

from morphogen.errors import MorphogenError

# Calls that may begin before one that waits. A thread that calls again at once is faster than one
# that has to wake, so that none would wait for the other's waking at each call. But it always is.
cdef enum:
    MOST_OVERTAKING = 4


@cython.final
cdef class _Place:
    """Room for a call, and what it uses."""

    cdef object lent
    cdef unsigned long holder  # the thread of the call, or 0
    cdef bint ending           # whether the call has said that it is about to end

    def __cinit__(self, lent) -> None:
        self.lent = lent


@cython.final
cdef class Calls:
    """So many calls at a time, each on a thread of its own; ``with`` gives what it uses.

    A call from within a call is refused: it might wait for ever.

    Parameters
    ----------
    called : str
        What is called, for the message: "an engine".
    lent : list
        What each call that is under way has for itself.
    process : OwnerProcess, optional
        Whose calls alone are let in. Without one, the caller has checked that.

    Raises
    ------
    MorphogenError
        On entry, the process's own error in a fork of it; and if this thread is in a call already:
        code that the call runs, such as a property of its arguments, a finalizer or a signal
        handler, made another.
    """

    def __cinit__(
        self, called: str, lent: list[Any], process: OwnerProcess | None = None
    ) -> None:
        self._called = called
        self._process = process
        self._pid = getpid()
        self._places = [_Place(one) for one in lent]
        self._waiting = []
        self._waiting_alone = []

    def limit(self) -> int:
        """The most calls that may be under way."""
        return len(self._places)

    def waiting(self) -> int:
        """Calls that wait to begin."""
        return len(self._waiting)

    def waiting_alone(self) -> int:
        """Calls that wait until no other is under way."""
        return len(self._waiting_alone)

    def is_here(self) -> bool:
        """Whether this thread is in a call."""
        cdef unsigned long here = <unsigned long>PyThread_get_thread_ident()
        cdef _Place place
        if self._alone == here:
            return True
        for place in self._places:
            if place.holder == here:
                return True
        return False

    def check_free(self) -> None:
        """Refuse, as entry does, a call from within a call."""
        self._check_free(<unsigned long>PyThread_get_thread_ident())

    def alone(self) -> Alone:
        """A call beside which there is no other: for ``with``.

        It goes before calls that wait, which then go before the next such call.
        """
        return Alone(self)

    def ends_last(self) -> bool:
        """Say that this thread's call is about to end. Whether no other is left to say so."""
        cdef unsigned long here = <unsigned long>PyThread_get_thread_ident()
        cdef bint last = True
        cdef _Place place
        for place in self._places:
            if place.holder == here:
                place.ending = True
            elif place.holder != 0 and not place.ending:
                last = False
        return last

    def __enter__(self) -> Any:
        return self.enter()

    def __exit__(self, *exception: object) -> None:
        self.leave()

    cdef object enter(self):
        """Begin a call. What follows must be a ``try`` of compiled code, and `leave`."""
        cdef unsigned long here = <unsigned long>PyThread_get_thread_ident()
        if self._process is not None and self._pid != getpid():
            self._process.check()
        self._check_free(here)
        if self._may_begin(0) and self._may_overtake():
            return self._take(here)
        return self._wait(here)

    cdef int leave(self) except -1:
        """End the call of this thread."""
        cdef unsigned long here = <unsigned long>PyThread_get_thread_ident()
        cdef _Place place
        for place in self._places:
            if place.holder == here:
                place.holder = 0
                place.ending = False
                self._taken -= 1
        return self._wake()

    cdef object take_more(self):
        """What one more free place has, for this thread's call, or None. Others go first."""
        if len(self._waiting) > 0 or not self._may_begin(0):
            return None
        return self._take(<unsigned long>PyThread_get_thread_ident())

    cdef int give_back(self, lent) except -1:
        """Free a place of this thread's call before its end."""
        cdef _Place place
        for place in self._places:
            if place.lent is lent:
                place.holder = 0
                self._taken -= 1
        return self._wake()

    cdef bint is_wanted(self) noexcept:
        """Whether a call waits for a place."""
        return len(self._waiting) > 0

    cdef int add(self, lent) except -1:
        """Make one more place."""
        self._places.append(_Place(lent))
        return self._wake()

    cdef bint _may_begin(self, Py_ssize_t first) noexcept:
        """Whether a call may. first: calls that go before one that wants to be alone."""
        if self._taken >= len(self._places) or self._alone != 0:
            return False
        return first > 0 or len(self._waiting_alone) == 0

    cdef bint _may_overtake(self) noexcept:
        """Whether a call that comes now may begin before those that wait."""
        if len(self._waiting) == 0:
            self._overtaking = 0
            return True
        if self._overtaking == MOST_OVERTAKING:
            return False
        self._overtaking += 1
        return True

    cdef bint _is_next(self, waiter) except -1:
        """Whether there is a place for one that waits, and for those before it in line."""
        return self._waiting.index(waiter) < len(self._places) - self._taken

    cdef bint _may_be_alone(self) noexcept:
        return self._taken == 0 and self._alone == 0 and self._first == 0

    cdef int _check_free(self, unsigned long here) except -1:
        cdef _Place place
        if self._alone != here:
            for place in self._places:
                if place.holder == here:
                    break
            else:
                return 0
        raise MorphogenError(
            f"{self._called} cannot be called from within its own call, as by a property of a "
            "query, a finalizer or a signal handler"
        )

    cdef object _take(self, unsigned long here):
        """What the first free place has. There is one."""
        cdef _Place place
        for place in self._places:
            if place.holder == 0:
                place.holder = here
                self._taken += 1
                return place.lent

    cdef object _wait(self, unsigned long here):
        waiter = threading.Lock()
        waiter.acquire()
        self._waiting.append(waiter)
        try:
            while not (self._may_begin(self._first) and self._is_next(waiter)):
                waiter.acquire()
            self._first -= self._first > 0
            self._overtaking = 0
            return self._take(here)
        finally:
            self._waiting.remove(waiter)
            self._first = min(self._first, len(self._waiting))
            self._wake()  # others, if this was woken and interrupted

    cdef int _begin_alone(self) except -1:
        cdef unsigned long here = <unsigned long>PyThread_get_thread_ident()
        self._check_free(here)
        if self._process is not None:
            self._process.check()
        waiter = threading.Lock()
        waiter.acquire()
        self._waiting_alone.append(waiter)
        try:
            while not self._may_be_alone():
                waiter.acquire()
            self._alone = here
        finally:
            self._waiting_alone.remove(waiter)
            self._wake()
        return 0

    cdef int _end_alone(self) except -1:
        self._alone = 0
        self._first = min(len(self._waiting), len(self._places))  # or they might wait for ever
        return self._wake()

    cdef int _wake(self) except -1:
        """Wake those that may begin. They stay in line until they have begun."""
        cdef Py_ssize_t at
        if self._alone != 0:
            return 0
        if self._waiting_alone and self._first == 0:
            return _wake_one(self._waiting_alone[0]) if self._taken == 0 else 0
        for at in range(min(len(self._places) - self._taken, len(self._waiting))):
            _wake_one(self._waiting[at])
        return 0


cdef int _wake_one(waiter) except -1:
    if waiter.locked():
        waiter.release()
    return 0


@cython.final
cdef class Alone:
    """A call beside which there is no other, of `Calls.alone`."""

    cdef Calls _calls

    def __cinit__(self, Calls calls) -> None:
        self._calls = calls

    def __enter__(self) -> None:
        self._calls._begin_alone()

    def __exit__(self, *exception: object) -> None:
        self._calls._end_alone()
