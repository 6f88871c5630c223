"""Storms of Ctrl-C, in processes of their own: what one locks for ever must not lock the tests."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

INTERRUPTS = 3000
SECONDS = 120  # only a failed test waits this long


def storm(work: Callable[[], object], interrupts: int = INTERRUPTS) -> None:
    """Do work again and again, and break it off by so many interrupts, at times in pairs."""
    armed = hits = 0
    over = False

    def interrupt(*_: object) -> None:
        nonlocal armed, hits
        if over:
            return  # a timer that was set now would end the process
        # Again and again, since Python loses a signal now and then.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 500e-6), 1e-3)
        if armed:
            armed -= 1
            hits += 1
            raise KeyboardInterrupt

    def while_armed() -> None:
        # In a function of its own: in CPython 3.12 and 3.13 the end of a loop is in no ``try``.
        while armed:  # an interrupt may come within a finalizer, which swallows it
            work()

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1e-3)
    while hits < interrupts:
        try:
            try:
                armed = random.choice((1, 1, 2))
                while_armed()
            except KeyboardInterrupt:
                armed = 0
        except KeyboardInterrupt:
            armed = 0  # the second of a pair came while the first was handled
    over = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@contextmanager
def beside(*works: Callable[[], object]) -> Iterator[None]:
    """Do each work on a thread of its own meanwhile, again and again."""
    done = threading.Event()
    errors: list[BaseException] = []

    def repeat(work: Callable[[], object]) -> None:
        try:
            while not done.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors, errors


def pending() -> list[Future[object]]:
    """The futures of this process that are not done."""
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, Future) and not found.done()]


def threads_of_process() -> int:
    """The threads of this process, those that Python does not know among them."""
    return len(list(Path("/proc/self/task").iterdir()))


def named(name: str) -> list[threading.Thread]:
    """The threads of a name that run."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def assert_survives(script: str, *arguments: str, **variables: str) -> None:
    """Run a script that begins with ``from storm import *``; it must end, and print "done"."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


def give_up_in_time() -> None:
    """End this process with all tracebacks if it hangs."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
