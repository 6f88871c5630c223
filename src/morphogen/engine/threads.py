"""The start of a thread that an interrupt cannot cut in the middle."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable


def start_thread(target: Callable[[Callable[[], None]], None], name: str) -> None:
    """Start a daemon thread, and wait until it is ready.

    `threading.Thread.start` waits by an Event: Ctrl-C there can leave the lock within it taken, for
    which the new thread then waits for ever. So another thread calls it, where no signal handler
    runs.

    Parameters
    ----------
    target : callable
        Runs on the thread. Its argument is a function to be called when the thread is ready; it
        is called, too, if this thread was interrupted and waits no more.
    name : str
        The thread's name.

    Raises
    ------
    RuntimeError
        If the system refuses to start another thread, or Python is shutting down; none was started
        then.
    """
    if sys.is_finalizing():  # before 3.12 a new thread ends without a word, and is never ready
        raise RuntimeError("Python is shutting down")
    errors: list[BaseException] = []
    settled = threading.Lock()
    settled.acquire()

    def launch() -> None:
        try:
            threading.Thread(target=target, args=(settled.release,), name=name, daemon=True).start()
        except BaseException as error:
            errors.append(error)
            settled.release()

    _thread.start_new_thread(launch, ())
    settled.acquire()  # of a raw lock: taken or not, never half
    if errors:
        raise errors[0]
