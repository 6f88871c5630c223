"""Engines that are opened side by side, each by a thread of its own.

Only the caller's thread tells of progress, and heeds Ctrl-C. The others ask after each piece of an
upload whether they are to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from morphogen.engine.base import Engine
from morphogen.engine.named_errors import named_error
from morphogen.engine.threads import start_thread
from morphogen.errors import DeviceError
from morphogen.progress import Progress

# Opens an engine, and tells of its upload.
Opener = Callable[[Progress], Engine]


class _StoppedError(Exception):
    """An upload was stopped, since another failed."""


def open_side_by_side(
    openers: Sequence[tuple[str, Opener]], total: int, progress: Progress | None
) -> list[Engine]:
    """Open engines, or none.

    Parameters
    ----------
    openers : sequence of (str, callable)
        Of each engine the name of its device, and what opens it: called with a function that it
        calls while it uploads.
    total : int
        Bytes that all of them upload.
    progress : callable or None
        Called with the bytes that all have sent, and ``total``.

    Returns
    -------
    list of Engine
        In order.

    Raises
    ------
    Exception
        The first that an opener raised, or ``progress``; a `DeviceError` names its device. The
        others are closed.
    """
    opening = _Opening(len(openers))
    try:
        for at, (name, opener) in enumerate(openers):
            try:
                start_thread(partial(opening.open, at, opener), f"morphogen-open-{name}")
            except RuntimeError as error:
                raise DeviceError(f"cannot start {len(openers)} threads: {error}") from None
        opening.wait(openers, total, progress)
        return opening.engines()
    except BaseException:
        opening.undo()
        raise


class _Opening:
    """What the threads came to so far.

    An interrupt may take a message from the queue that nobody looks at then, or come when a thread
    has started and nobody knows yet. So messages only wake, and threads say themselves that they
    have begun.
    """

    def __init__(self, count: int) -> None:
        self.outcomes: list[Engine | BaseException | None] = [None] * count
        self._begun: list[int] = []
        self._sent = [0] * count
        self._news: SimpleQueue[bool] = SimpleQueue()  # True: more bytes were sent
        self._stop = threading.Event()

    def open(self, at: int, opener: Opener, ready: Callable[[], None]) -> None:
        """Open one engine. Runs on the thread."""
        # Whoever undoes stops first and then looks who has begun: this is seen there or sees that.
        self._begun.append(at)
        ready()

        def tell(sent: int, total: int) -> None:
            if self._stop.is_set():
                raise _StoppedError
            self._sent[at] = sent
            self._news.put(True)

        try:
            self.outcomes[at] = _StoppedError() if self._stop.is_set() else opener(tell)
        except BaseException as error:
            self.outcomes[at] = error
        self._news.put(False)

    def wait(
        self, openers: Sequence[tuple[str, Opener]], total: int, progress: Progress | None
    ) -> None:
        """Wait for all, or raise what one raised."""
        left = len(openers)
        while left:
            if self._news.get():
                if progress is not None:
                    progress(sum(self._sent), total)
                continue
            left -= 1
            for (name, _), outcome in zip(openers, self.outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    raise named_error(name, outcome)

    def engines(self) -> list[Engine]:
        """What was opened, in order."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Engine)]

    def undo(self) -> None:
        """Stop the threads that run, wait for them, and close what they opened."""
        self._stop.set()
        while any(self.outcomes[at] is None for at in self._begun):
            self._news.get()
        for engine in self.engines():
            engine.close()
