"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from morphogen.checks import OwnerProcess
from morphogen.errors import MorphogenError

T = TypeVar("T")


class LoopThread:
    """An event loop on a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self._owner = OwnerProcess("client", "make a client in each process", MorphogenError)
        self._lock = threading.Lock()  # nothing may be given to the loop once its end has begun
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="morphogen-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it."""
        try:
            self._owner.check()
        except MorphogenError:
            work.close()
            raise
        with self._lock:
            if self._closing:
                work.close()
                raise MorphogenError("this client is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise MorphogenError("this client was closed meanwhile") from None
        except BaseException:
            future.cancel()  # after an interrupt, nobody waits for it any more
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel what runs there, run this, end the thread. May be called again."""
        if not self._owner.is_current():
            return
        with self._lock:
            first, self._closing = not self._closing, True
        if not first:
            self._thread.join()
            return
        try:
            for end in (_cancel_others, last):
                asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
