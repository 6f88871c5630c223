"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from morphogen.checks import OwnerProcess
from morphogen.engine.threads import start_thread
from morphogen.errors import MorphogenError

T = TypeVar("T")
Work = Coroutine[Any, Any, T]


class _Call(Generic[T]):
    """A coroutine that is made and run on the loop, and the thread that waits for it.

    It waits for a raw lock. Ctrl-C within the `result` of a future can leave the future's own lock
    taken, for which the loop would then wait for ever.
    """

    def __init__(self, work: Callable[[], Work[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def start(self) -> None:
        """Begin. Called on the loop, as is `cancel`."""
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # after an interrupt nobody asks for it, and asyncio would complain
        self._ended.release()

    def cancel(self) -> None:
        """Break it off."""
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        """Wait for its end."""
        self._ended.acquire()
        assert self._task is not None
        return self._task.result()


class _End:
    """The end of a loop, which begins once, however often it is asked for.

    Parameters
    ----------
    last : callable
        Makes the coroutine that runs as the last.
    """

    def __init__(self, last: Callable[[], Work[None]]) -> None:
        self._last = last
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin. Called on the loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await _cancel_others()
            await self._last()
        finally:
            asyncio.get_running_loop().stop()

    def result(self) -> None:
        """Raise what went wrong. Called after the end."""
        if self._task is not None:
            self._task.result()


class LoopThread:
    """An event loop on a thread of its own, for callers that have none.

    Parameters
    ----------
    last : callable
        Makes the coroutine that runs as the last.

    Raises
    ------
    MorphogenError
        If the system refuses to start another thread.

    Notes
    -----
    The thread has the loop, and not this object: a client that is dropped ends it.
    """

    def __init__(self, last: Callable[[], Work[None]]) -> None:
        self._owner = OwnerProcess("client", "make a client in each process", MorphogenError)
        self._lock = threading.Lock()  # nothing may be given to the loop once its end has begun
        self._closing = False
        self._end = _End(last)
        self._running = running = threading.Lock()  # taken while the thread runs
        self._loop = loop = asyncio.new_event_loop()

        def work(ready: Callable[[], None]) -> None:
            with running:
                loop.call_soon(ready)
                try:
                    loop.run_forever()
                finally:
                    loop.close()

        try:
            start_thread(work, "morphogen-client")
        except RuntimeError as error:
            loop.close()
            raise MorphogenError(f"a client needs a thread: {error}") from None

    def run(self, work: Callable[[], Work[T]]) -> T:
        """Make a coroutine there, run it and wait for it."""
        self._owner.check()
        if sys.is_finalizing():  # its thread has stopped for good where it was
            raise MorphogenError("a client cannot be used any more: Python is shutting down")
        if self._is_here():
            raise MorphogenError("a client cannot be used on its own thread")
        call = _Call(work)
        try:
            with self._lock:
                if self._closing:
                    raise MorphogenError("this client is closed")
                self._loop.call_soon_threadsafe(call.start)
            return call.result()
        except asyncio.CancelledError:
            raise MorphogenError("this client was closed meanwhile") from None
        except BaseException:
            self._tell(call.cancel)  # after an interrupt, nobody waits for it any more
            raise

    def shut(self) -> None:
        """Begin to end the thread: what runs there is cancelled. Does not wait."""
        if not self._owner.is_current():
            return
        with self._lock:
            self._closing = True
        self._tell(self._end.begin)

    def close(self) -> None:
        """Cancel what runs there, run the last, end the thread. May be called again."""
        if not self._owner.is_current():
            return
        self.shut()
        # In a finalizer: the thread cannot wait for itself, and does not end where Python does.
        if self._is_here() or sys.is_finalizing():
            return
        with self._running:
            self._end.result()

    def __del__(self) -> None:
        if hasattr(self, "_loop") and not sys.is_finalizing():
            self.shut()

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _tell(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
