"""A task that waits for futures of another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import TypeVar

T = TypeVar("T")


async def results(futures: Sequence[Future[T]]) -> list[T]:
    """Wait for the results of futures, or for the first error.

    The event loop is woken once, where `asyncio.wrap_future` wakes it for each.

    Parameters
    ----------
    futures : sequence of Future
        Nobody else cancels them.

    Returns
    -------
    list
        In the order of the futures.
    """
    if not futures:
        return []
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Future[T]] = loop.create_future()
    numbers = count(1)  # one step, on any thread

    def tell(future: Future[T]) -> None:
        if not told.done():
            told.set_result(future)

    def done(future: Future[T]) -> None:
        last = next(numbers) == len(futures)
        if last or future.cancelled() or future.exception() is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell, future)

    for future in futures:
        future.add_done_callback(done)
    (await told).result()
    return [future.result() for future in futures]
