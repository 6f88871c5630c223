# Made by tools/release/make_stubs.py from the module's source.
"""Locks that no interrupt leaves taken.

A signal handler may raise between any two steps of Python code, as that of Ctrl-C does: also after
a lock was taken and before the ``try`` that gives it back, or within an ``__enter__`` written in
Python, as `threading.Condition` has one. Compiled code has no such steps, and neither has ``with``
around it.

A loop in that ``with`` has one: from CPython 3.12 on, a jump back to a loop's begin, to which a
condition leads, belongs to no ``with`` or ``try`` around the loop (python/cpython#108214). So such
a loop has a function of its own.
"""

from collections.abc import Callable

class Condition:
    """Like `threading.Condition`, over a lock that its holder may take again."""

    def __init__(self) -> None: ...
    def __enter__(self) -> Condition: ...
    def __exit__(self, *exception: object) -> None: ...
    def acquire(self) -> bool:
        """Take the lock. For `concurrent.futures.wait`; all else uses ``with``."""
    def release(self) -> None:
        """Give the lock back."""
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
    def notify_all(self) -> None:
        """Wake all that wait. The caller holds the lock."""
