# Locks that no interrupt leaves taken.
cimport cython
from cpython.pythread cimport PyThread_type_lock


@cython.final
cdef class CallLock:
    cdef str _called
    cdef PyThread_type_lock _lock
    cdef unsigned long _holder
    cdef object _process  # the only one that may call, or None
    cdef int _pid         # of it

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef int _wait(self) except -1
    cdef int _refuse(self) except -1


@cython.final
cdef class Condition:
    cdef object _lock
    cdef list _waiters  # a lock of each thread that waits

    cdef bint is_owned(self) except -1
    cdef object take_anyway(self)
    cdef object _enlist(self)
    cdef int _strike(self, waiter) except -1
    cdef bint _sleep(self, waiter, timeout) except -1
