"""Long work beside the event loop, which is broken off when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from morphogen.engine.threads import start_thread
from morphogen.progress import Progress

_Result = TypeVar("_Result")


class StoppedError(Exception):
    """The server stops: what is being made is not needed any more."""


class Worker:
    """Runs functions, each on a thread of its own.

    Attributes
    ----------
    stopped : bool
        Whether `stop` was called.
    """

    def __init__(self) -> None:
        self.stopped: bool = False

    def stop(self) -> None:
        """Break off what runs, where it next tells its progress, and begin nothing more."""
        self.stopped = True

    async def run(self, work: Callable[[Progress], _Result]) -> _Result:
        """Run a function beside the event loop.

        Parameters
        ----------
        work : callable
            Its argument is to be called now and then, as a progress is, and may raise there.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        StoppedError
            If the server stops; or what the function raises.
        """
        self._check()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        outcome: list[_Result] = []
        errors: list[BaseException] = []

        def tell() -> None:
            if not ended.done():  # the server may have given it up
                ended.set_result(None)

        def thread(ready: Callable[[], None]) -> None:
            ready()
            try:
                outcome.append(work(self._check))
            except BaseException as error:
                errors.append(error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell)

        start_thread(thread, "morphogen reload")
        await ended
        if errors:
            raise errors.pop()
        return outcome.pop()

    def _check(self, done: int = 0, total: int = 0) -> None:
        if self.stopped:
            raise StoppedError
