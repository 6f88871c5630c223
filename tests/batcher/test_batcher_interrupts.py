"""Ctrl-C at any moment of a batcher's life leaves no lock taken and no future pending."""

from __future__ import annotations

import _thread
import copy
import gc
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import pytest

import morphogen as mg
from held_engine import SECONDS, HeldEngine
from naive import open_engine, random_pages, random_rows
from storm import assert_survives, named

PAGES = 200
QUERIES = mg.make_queries(random_rows(8, 3, PAGES), PAGES)[0]


@pytest.fixture
def engine() -> Iterator[HeldEngine]:
    with HeldEngine(open_engine(random_pages(PAGES, 48), threads=1), 4) as held:
        yield held
        held.held.set()


SETUP = """
import gc, random
import numpy as np
import morphogen as mg
from naive import naive_answers, random_pages, random_rows
from storm import *

give_up_in_time()
array = random_pages(200, 48)
queries = mg.make_queries(random_rows(8, 3, 200), 200)[0]
right = {query: naive_answers(array, [query]) for query in queries}
engine = mg.open_engine(mg.PageMatrix(array), "cpu", threads=1)

def check(query, future):
    assert np.array_equal(future.result().pages, right[query])

def check_all(batcher):
    for query, future in zip(queries, batcher.submit_many(queries)):
        check(query, future)

def check_one(batcher):
    query = random.choice(queries)
    check(query, batcher.submit(query))
"""

ALONE = """
batcher = mg.MicroBatcher(engine)
storm(lambda: check_one(batcher))
"""

# What an interrupt cuts off stays in the queue until it is answered: there is room for all of it.
SHARED = """
batcher = mg.MicroBatcher(engine, max_micro_batch=3, max_queued=1 << 20)
with beside(lambda: check_one(batcher), lambda: check_all(batcher)):
    storm(lambda: (check_one(batcher), check_all(batcher)))
"""

IN_FLIGHT = """
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.local import LocalShard
replicas = [[LocalShard(mg.open_engine(engine.pages, "cpu", threads=1)) for _ in range(2)]]
engine = ShardedEngine(replicas, engine.table, max_micro_batch=3)
batcher = mg.MicroBatcher(engine, max_queued=1 << 20)
assert batcher.max_in_flight == 2
with beside(lambda: check_one(batcher), lambda: check_all(batcher)):
    storm(lambda: (check_one(batcher), check_all(batcher)))
"""

CANCELLED = """
batcher = mg.MicroBatcher(engine, max_micro_batch=3, max_queued=1 << 20)
def cancel():
    futures = batcher.submit_many(queries)
    for future in futures:
        future.cancel()
        future.add_done_callback(lambda future: None)
    futures[0].done(), futures[0].running()
    batcher.statistics()
with beside(lambda: check_all(batcher)):
    storm(cancel)
"""

CLOSED = """
batchers = []
def close():
    while batchers:
        assert batchers[-1].close()
        batchers.pop()

def use():
    close()  # again, if an interrupt cut it
    batcher = mg.MicroBatcher(engine)
    batchers.append(batcher)
    futures = batcher.submit_many(queries)
    check(queries[0], futures[0])
    batcher.close()

storm(use, INTERRUPTS // 10)
close()
batcher = mg.MicroBatcher(engine)
"""

END = """
check_one(batcher)
check_all(batcher)
assert batcher.close()
counts = batcher.statistics()
assert (counts.queued, counts.running) == (0, 0)
assert not pending()
while named("morphogen-batcher"):
    pass
engine.close()
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [ALONE, SHARED, IN_FLIGHT, CANCELLED, CLOSED],
    ids=["alone", "shared", "in flight", "cancelled", "closed"],
)
def test_a_batcher_survives_a_storm_of_interrupts(script: str) -> None:
    assert_survives(SETUP + script + END)


def test_an_interrupt_on_the_own_thread_frees_the_engine(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        engine.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            batcher.submit(QUERIES[0])
        engine.error = None
        assert batcher.submit(QUERIES[0]).result(SECONDS).pages.any()


# Callbacks


def test_a_callback_that_raises_harms_nobody(engine: HeldEngine) -> None:
    def broken(_: Future[mg.Answer]) -> None:
        raise RuntimeError("in a callback")

    with mg.MicroBatcher(engine) as batcher:
        engine.held.clear()
        first, second = batcher.submit_many(QUERIES[:2])
        first.add_done_callback(broken)
        engine.held.set()
        assert first.result(SECONDS).pages.any()
        assert second.result(SECONDS).pages.any()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_callback_that_raises_ends_neither_the_thread_nor_other_callbacks(
    engine: HeldEngine, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def broken(_: Future[mg.Answer]) -> None:
        raise error

    called: list[Future[mg.Answer]] = []
    with mg.MicroBatcher(engine) as batcher:
        engine.held.clear()
        futures = batcher.submit_many(QUERIES)
        for future in futures:
            future.add_done_callback(broken)
            future.add_done_callback(called.append)
        with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
            engine.held.set()
            assert not wait(futures, SECONDS).not_done
            assert batcher.submit_many(QUERIES[:1])[0].result(SECONDS).pages.any()
        assert batcher.close()
    assert called == futures


def test_a_callback_added_too_late_raises_to_whoever_added_it(engine: HeldEngine) -> None:
    def broken(_: Future[mg.Answer]) -> None:
        raise SystemExit

    with mg.MicroBatcher(engine) as batcher:
        future = batcher.submit(QUERIES[0])
        with pytest.raises(SystemExit):
            future.add_done_callback(broken)


def test_a_future_that_somebody_else_ends_harms_no_other(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        engine.held.clear()
        first = batcher.submit_many(QUERIES[:1])[0]
        assert engine.begun.acquire(timeout=SECONDS)
        waiting, other = batcher.submit_many(QUERIES[1:3])
        for future in (first, waiting):
            future.set_exception(ValueError("mine"))
        engine.held.set()
        assert other.result(SECONDS).pages.any()
        assert isinstance(first.exception(), ValueError)
        assert isinstance(waiting.exception(), ValueError)


# The end


def test_a_batcher_that_is_dropped_answers_what_it_took_and_ends_its_thread(
    engine: HeldEngine,
) -> None:
    batcher = mg.MicroBatcher(engine)
    engine.held.clear()
    futures = batcher.submit_many(QUERIES)
    (thread,) = named("morphogen-batcher")
    del batcher
    gc.collect()
    assert thread.is_alive()
    engine.held.set()
    assert not wait(futures, SECONDS).not_done
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_batcher_closed_by_what_its_engine_calls_does_not_wait_for_itself(
    engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = mg.MicroBatcher(engine)
    answer, done = engine.answer, []

    def close_and_answer(*arguments: Any, **options: Any) -> mg.Answer:
        done.append(batcher.close())
        return answer(*arguments, **options)

    monkeypatch.setattr(engine, "answer", close_and_answer)
    assert batcher.submit(QUERIES[0]).result(SECONDS).pages.any()
    assert done == [False]
    assert batcher.close()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_batcher_is_neither_copied_nor_pickled(
    engine: HeldEngine, make: Callable[[object], object]
) -> None:
    with mg.MicroBatcher(engine) as batcher:
        with pytest.raises(TypeError, match=r"^a batcher cannot be copied or pickled: make one "):
            make(batcher)
        assert batcher.submit(QUERIES[0]).result(SECONDS).pages.any()


# Threads that the system refuses


@pytest.mark.parametrize("refused", ["first", "second"])
def test_without_a_thread_nothing_is_queued(
    engine: HeldEngine, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Two are started, one by the other: see morphogen.engine.threads."""

    def refuse(*arguments: Any) -> int:
        raise RuntimeError("can't start new thread")

    with mg.MicroBatcher(engine) as batcher:
        with monkeypatch.context() as patch:
            if refused == "first":
                patch.setattr(_thread, "start_new_thread", refuse)
            else:
                patch.setattr(threading.Thread, "start", refuse)
            message = r"^no query can wait, since the batcher has no thread: can't start new thread"
            with pytest.raises(mg.OverloadedError, match=message):
                batcher.submit_many(QUERIES)
            assert batcher.submit(QUERIES[0]).result(SECONDS).pages.any()
        counts = batcher.statistics()
        assert (counts.queued, counts.running, counts.answered) == (0, 0, 1)
        for future in batcher.submit_many(QUERIES):
            assert future.result(SECONDS).pages.any()


def test_a_lack_of_memory_fails_a_chunk_and_not_the_thread(
    engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import morphogen.batcher.worker as worker

    def fail(*_: object) -> None:
        raise MemoryError

    with mg.MicroBatcher(engine) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(worker, "tell_answered", fail)
            for future in batcher.submit_many(QUERIES):
                assert isinstance(future.exception(SECONDS), MemoryError)
        assert batcher.submit_many(QUERIES[:1])[0].result(SECONDS).pages.any()
