# Locks that no interrupt leaves taken.
cimport cython


@cython.final
cdef class Condition:
    cdef object _lock
    cdef list _waiters  # a lock of each thread that waits

    cdef bint is_owned(self) except -1
    cdef object take_anyway(self)
    cdef object _enlist(self)
    cdef int _strike(self, waiter) except -1
    cdef bint _sleep(self, waiter, timeout) except -1
