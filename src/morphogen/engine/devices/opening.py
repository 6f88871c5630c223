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
    news: SimpleQueue[tuple[int, int | Engine | BaseException]] = SimpleQueue()
    stop = threading.Event()
    sent = [0] * len(openers)
    opened: dict[int, Engine] = {}
    running = 0

    def take() -> None:
        """Take what a thread tells."""
        nonlocal running
        at, told = news.get()
        if isinstance(told, int):
            sent[at] = told
            if progress is not None and not stop.is_set():
                progress(sum(sent), total)
            return
        running -= 1
        if isinstance(told, Engine):
            opened[at] = told
        elif not stop.is_set():
            raise named_error(openers[at][0], told)

    try:
        for at, (name, opener) in enumerate(openers):
            try:
                start_thread(partial(_open, opener, at, news, stop), f"morphogen-open-{name}")
            except RuntimeError as error:
                raise DeviceError(f"cannot start {len(openers)} threads: {error}") from None
            running += 1
        while running:
            take()
    except BaseException:
        stop.set()
        while running:
            take()
        for engine in opened.values():
            engine.close()
        raise
    return [opened[at] for at in range(len(openers))]


def _open(
    opener: Opener,
    at: int,
    news: SimpleQueue[tuple[int, int | Engine | BaseException]],
    stop: threading.Event,
    ready: Callable[[], None],
) -> None:
    ready()

    def tell(sent: int, total: int) -> None:
        if stop.is_set():
            raise _StoppedError
        news.put((at, sent))

    try:
        engine = opener(tell)
    except BaseException as error:
        news.put((at, error))
    else:
        news.put((at, engine))
