"""A thread of a batcher: it answers chunk after chunk, and tells the futures.

It has its batcher's state, and not the batcher: so one that is dropped can end its threads.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable
from functools import partial

from morphogen.batcher.future import AnswerFuture
from morphogen.batcher.monitor import Monitor, Turn
from morphogen.engine.base import Engine
from morphogen.engine.threads import start_thread
from morphogen.errors import DeadlineError, OverloadedError
from morphogen.query import Answer


def start_worker(monitor: Monitor, engine: Engine, max_micro_batch: int | None) -> None:
    """Give a batcher one more thread, unless it has enough.

    Parameters
    ----------
    monitor : Monitor
        The batcher's.
    engine : Engine
        The engine that answers.
    max_micro_batch : int or None
        As `Engine.answer` takes it.

    Raises
    ------
    OverloadedError
        If the system refuses to start a first thread.
    """

    def work(ready: Callable[[], None]) -> None:
        thread = threading.current_thread()
        end = partial(monitor.close)  # of this thread: another's is not equal to it
        # After an interrupted start there may be one that nobody waited for.
        needed = monitor.add_worker(thread)
        if needed:
            # A thread inside the engine while the interpreter goes down would be a crash.
            atexit.register(end)
        ready()
        if needed:
            try:
                _work(monitor, engine, max_micro_batch)
            finally:
                atexit.unregister(end)
                monitor.remove_worker(thread)

    try:
        start_thread(work, "morphogen-batcher")
    except RuntimeError as error:
        if not monitor.has_worker():
            raise OverloadedError(
                f"no query can wait, since the batcher has no thread: {error}"
            ) from None


def _work(monitor: Monitor, engine: Engine, max_micro_batch: int | None) -> None:
    """Run chunk after chunk until the batcher is closed and its queue empty."""
    while True:
        turn = None  # an idle thread keeps no answers
        try:
            turn = monitor.next_turn()
            if turn is None:
                return
            tell_expired(turn.expired)
            tell_refused(turn.refused)
            if monitor.leaves_work():
                start_worker(monitor, engine, max_micro_batch)
            if turn.futures:
                _answer(turn, engine, max_micro_batch)
        except BaseException as error:
            # Such as a lack of memory: the chunk fails, and the thread goes on.
            turn = monitor.abandon_turn() or turn
            if turn is not None:
                tell_failed(error, [*turn.expired, *turn.refused, *turn.futures])


def _answer(turn: Turn, engine: Engine, max_micro_batch: int | None) -> None:
    outcome: Answer | BaseException
    with turn:
        try:
            outcome = engine.answer(turn.queries, max_micro_batch=max_micro_batch)
            turn.answered = True
        except BaseException as error:
            outcome = error
    if isinstance(outcome, BaseException):
        tell_failed(outcome, turn.futures)
    else:
        tell_answered(outcome, turn.futures)


def expire(monitor: Monitor, futures: list[AnswerFuture]) -> None:
    """Fail those that still wait: their time is up."""
    tell_expired(future for future in monitor.expire(futures) if future.claim())


def tell_expired(futures: Iterable[AnswerFuture]) -> None:
    """Give each its DeadlineError."""
    for future in futures:
        future.tell(DeadlineError("the query waited longer than its time-out"))


def tell_refused(futures: Iterable[AnswerFuture]) -> None:
    """Give each the OverloadedError that it would have got, had it come later."""
    for future in futures:
        future.tell(OverloadedError("the queue is full, and the queries of others are fewer"))


def tell_failed(error: BaseException, futures: Iterable[AnswerFuture]) -> None:
    """Give each the error that the engine raised, unless it knows its outcome."""
    for future in futures:
        future.tell(error)


def tell_answered(chunk: Answer, futures: list[AnswerFuture]) -> None:
    """Give each its part of a chunk's answer."""
    size = len(futures)
    for at, future in enumerate(futures):
        try:
            # A copy each, so that a caller who keeps one answer does not keep the whole chunk.
            pages = chunk.pages if size == 1 else chunk.pages[at : at + 1].copy()
            answer = Answer(
                pages, chunk.epoch, chunk.num_pages, chunk.micro_batch_sizes, chunk.party
            )
        except MemoryError as short:
            future.tell(short)
        else:
            future.tell(answer)
