# The calls that are under way in an engine.
cimport cython


@cython.final
cdef class Calls:
    cdef str _called
    cdef object _process      # the only one that may call, or None
    cdef int _pid             # of it
    cdef list _places         # a _Place for each call that may be under way
    cdef list _waiting        # a lock of each thread that waits for a place
    cdef list _waiting_alone  # and of each that waits until no call is under way
    cdef Py_ssize_t _taken    # places
    cdef Py_ssize_t _first    # calls that wait, and go before the next that is alone
    cdef int _overtaking       # calls that began before one that waits
    cdef unsigned long _alone  # the thread that runs alone, or 0

    cdef object enter(self)
    cdef int leave(self) except -1
    cdef object take_more(self)
    cdef int give_back(self, lent) except -1
    cdef bint is_wanted(self) noexcept
    cdef int add(self, lent) except -1
    cdef bint _may_begin(self, Py_ssize_t first) noexcept
    cdef bint _may_overtake(self) noexcept
    cdef bint _is_next(self, waiter) except -1
    cdef bint _may_be_alone(self) noexcept
    cdef int _check_free(self, unsigned long here) except -1
    cdef object _take(self, unsigned long here)
    cdef object _wait(self, unsigned long here)
    cdef int _begin_alone(self) except -1
    cdef int _end_alone(self) except -1
    cdef int _wake(self) except -1
