"""Signals that end a command: it cleans up, and ends as the signal asks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(KeyboardInterrupt):
    """A signal has asked the process to end. What would clean up after Ctrl-C does so here too.

    Parameters
    ----------
    number : int
        Of the signal.

    Attributes
    ----------
    exit_code : int
        128 and the number, as shells have it.
    """

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__("interrupted" if number == signal.SIGINT else f"ended by {name}")
        self.exit_code: int = 128 + number


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Make an exception of a signal that would end the process.

    Without this, SIGTERM and SIGHUP end Python where it stands, and temporary files and processes
    stay. After one of them the other is ignored, since supervisors send both at once. The same
    signal again, or Ctrl-C, is an exception again: Python may lose the first, amid a finalizer.

    Raises
    ------
    EndedBySignal
        When a signal comes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():  # others cannot set handlers
        for number in _ENDING:
            handler = signal.getsignal(number)
            # nohup and shells ignore some on purpose, and a program that calls main has its own.
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = handler
    try:
        for number in before:
            signal.signal(number, _end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for other in {signal.SIGTERM, signal.SIGHUP} - {number}:
        if number != signal.SIGINT and signal.getsignal(other) is _end:
            signal.signal(other, _ignore)
    raise EndedBySignal(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. SIG_IGN is no handler for a signal that came already: Python would complain."""
