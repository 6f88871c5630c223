"""MicroBatcher over engines that take several calls at a time: chunks under way beside another."""

from __future__ import annotations

import _thread
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from held_engine import SECONDS, HeldEngine
from naive import Bytes, naive_answers, open_engine, random_pages, random_rows
from storm import named

PAGES, PAGE_SIZE, WIDTH = 700, 48, 4
NAME = "morphogen-batcher"


@pytest.fixture(scope="module")
def table() -> Bytes:
    return random_pages(PAGES, PAGE_SIZE)


class TwoReplicas(HeldEngine):
    """An engine of two replicas, whose chunks run on the test's command."""

    def __init__(self, table: Bytes) -> None:
        super().__init__(open_engine(table, threads=1), WIDTH, max_in_flight=2)


class TwoLanes(TwoReplicas):
    """An engine of one device, on which a second chunk only waits."""

    @property
    def replicas(self) -> int:
        return 1


@pytest.fixture
def replicas(table: Bytes) -> Iterator[TwoReplicas]:
    with TwoReplicas(table) as held:
        yield held
        held.held.set()


@pytest.fixture
def lanes(table: Bytes) -> Iterator[TwoLanes]:
    with TwoLanes(table) as held:
        yield held
        held.held.set()


def some_queries(total: int, seed: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, PAGES, seed), PAGES)[0]


def begun(engine: HeldEngine, chunks: int) -> None:
    for _ in range(chunks):
        assert engine.begun.acquire(timeout=SECONDS)


def assert_right(table: Bytes, queries: list[mg.Query], futures: list[Future[mg.Answer]]) -> None:
    pages = np.concatenate([future.result(SECONDS).pages for future in futures])
    np.testing.assert_array_equal(pages, naive_answers(table, queries))


# How many


@pytest.mark.parametrize("kind", [TwoReplicas, TwoLanes])
def test_as_many_chunks_are_under_way_as_the_engine_takes(
    table: Bytes, kind: type[TwoReplicas]
) -> None:
    queries = some_queries(3 * WIDTH)
    with kind(table) as engine, mg.MicroBatcher(engine) as batcher:
        assert batcher.max_in_flight == engine.max_in_flight == 2
        engine.held.clear()
        futures = batcher.submit_many(queries)
        begun(engine, 2)
        counts = batcher.statistics()
        assert (counts.in_flight, counts.running, counts.queued) == (2, 2 * WIDTH, WIDTH)
        assert len(named(NAME)) == 2
        engine.held.set()
        assert_right(table, queries, futures)
        counts = batcher.statistics()
        assert (counts.in_flight, counts.running, counts.queued) == (0, 0, 0)
        assert counts.answered == len(queries)
    assert not named(NAME)


def test_a_caller_may_ask_for_fewer(replicas: TwoReplicas, table: Bytes) -> None:
    queries = some_queries(1 + 2 * WIDTH)
    with mg.MicroBatcher(replicas, max_in_flight=1) as batcher:
        assert batcher.max_in_flight == 1
        replicas.held.clear()
        futures = batcher.submit_many(queries[:1])
        begun(replicas, 1)
        futures += batcher.submit_many(queries[1:])
        assert batcher.statistics().in_flight == 1
        assert batcher.statistics().queued == 2 * WIDTH
        assert len(named(NAME)) == 1
        replicas.held.set()
        assert_right(table, queries, futures)


def test_what_is_no_number_of_chunks(replicas: TwoReplicas) -> None:
    with pytest.raises(ValueError, match=r"^max_in_flight must be in 1..2 on cpu, not 3$"):
        mg.MicroBatcher(replicas, max_in_flight=3)
    with pytest.raises(ValueError, match=r"^max_in_flight must be in 1..2 on cpu, not 0$"):
        mg.MicroBatcher(replicas, max_in_flight=0)
    with pytest.raises(TypeError, match=r"^max_in_flight must be an int, not str$"):
        mg.MicroBatcher(replicas, max_in_flight="2")  # type: ignore[arg-type]


# When a chunk begins


def test_a_query_runs_at_once_on_its_own_thread_where_a_replica_is_idle(
    replicas: TwoReplicas, table: Bytes
) -> None:
    first, second = some_queries(2)
    with mg.MicroBatcher(replicas) as batcher, ThreadPoolExecutor(2, "caller") as callers:
        replicas.held.clear()
        answers = [callers.submit(batcher.submit, query) for query in (first, second)]
        begun(replicas, 2)
        assert batcher.statistics().in_flight == 2
        assert {name for _, name in replicas.calls} == {"caller_0", "caller_1"}
        assert not named(NAME)
        replicas.held.set()
        assert_right(table, [first, second], [answer.result(SECONDS) for answer in answers])


def test_a_chunk_that_is_not_full_does_not_wait_on_a_device_where_no_query_can_join_it(
    lanes: TwoLanes, table: Bytes
) -> None:
    queries = some_queries(1 + WIDTH)
    with mg.MicroBatcher(lanes) as batcher:
        lanes.held.clear()
        futures = batcher.submit_many(queries[:1])
        begun(lanes, 1)
        for query in queries[1:WIDTH]:
            futures.append(batcher.submit(query))
        counts = batcher.statistics()
        assert (counts.in_flight, counts.queued) == (1, WIDTH - 1)
        futures.append(batcher.submit(queries[WIDTH]))
        begun(lanes, 1)
        assert batcher.statistics().in_flight == 2
        lanes.held.set()
        assert_right(table, queries, futures)
    assert lanes.chunks == [1, WIDTH]


def test_a_chunk_of_the_width_asked_for_is_full(lanes: TwoLanes, table: Bytes) -> None:
    queries = some_queries(2)
    with mg.MicroBatcher(lanes, max_micro_batch=1) as batcher:
        with ThreadPoolExecutor(2, "caller") as callers:
            lanes.held.clear()
            answers = [callers.submit(batcher.submit, query) for query in queries]
            begun(lanes, 2)
            lanes.held.set()
        assert_right(table, queries, [answer.result(SECONDS) for answer in answers])
    assert {name for _, name in lanes.calls} == {"caller_0", "caller_1"}


def test_what_an_engine_runs_may_submit_but_not_call_the_engine(replicas: TwoReplicas) -> None:
    inner: list[Future[mg.Answer]] = []
    answer = replicas.answer

    def submit_and_answer(*arguments: Any, **options: Any) -> mg.Answer:
        if not inner:
            inner.append(batcher.submit(some_queries(1, seed=1)[0]))
        return answer(*arguments, **options)

    replicas.answer = submit_and_answer  # type: ignore[method-assign]
    with mg.MicroBatcher(replicas) as batcher:
        assert batcher.submit(some_queries(1)[0]).result(SECONDS).pages.any()
        assert inner[0].result(SECONDS).pages.any()
    assert replicas.calls[0][1] != replicas.calls[1][1]


# Threads


def test_a_further_thread_is_started_only_when_all_have_work(replicas: TwoReplicas) -> None:
    with mg.MicroBatcher(replicas) as batcher:
        for query in some_queries(4):
            batcher.submit(query).result(SECONDS)
            begun(replicas, 1)
        assert not named(NAME)
        replicas.held.clear()
        first = batcher.submit_many(some_queries(1))
        begun(replicas, 1)
        assert len(named(NAME)) == 1
        second = batcher.submit_many(some_queries(1))
        begun(replicas, 1)
        assert len(named(NAME)) == 2
        third = batcher.submit_many(some_queries(1))
        assert len(named(NAME)) == 2
        replicas.held.set()
        assert not wait([*first, *second, *third], SECONDS).not_done


def test_without_a_second_thread_the_first_does_all(
    replicas: TwoReplicas, monkeypatch: pytest.MonkeyPatch, table: Bytes
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    queries = some_queries(1 + WIDTH)
    with mg.MicroBatcher(replicas) as batcher:
        replicas.held.clear()
        futures = batcher.submit_many(queries[:1])
        begun(replicas, 1)
        monkeypatch.setattr(_thread, "start_new_thread", refuse)
        futures += batcher.submit_many(queries[1:])
        counts = batcher.statistics()
        assert (counts.in_flight, counts.queued) == (1, WIDTH)
        monkeypatch.undo()
        replicas.held.set()
        assert_right(table, queries, futures)
        assert batcher.statistics().refused == 0


# Errors and the end


def test_an_error_fails_its_own_chunk_alone(replicas: TwoReplicas, table: Bytes) -> None:
    good, bad = some_queries(1), some_queries(1, seed=1)
    answer = replicas.answer

    def answer_or_fail(queries: list[mg.Query], **options: Any) -> mg.Answer:
        found = answer(queries, **options)
        if queries == bad:
            raise mg.DeviceError("broken")
        return found

    replicas.answer = answer_or_fail  # type: ignore[method-assign]
    with mg.MicroBatcher(replicas) as batcher:
        replicas.held.clear()
        right = batcher.submit_many(good)
        begun(replicas, 1)
        wrong = batcher.submit_many(bad)
        begun(replicas, 1)
        replicas.held.set()
        assert isinstance(wrong[0].exception(SECONDS), mg.DeviceError)
        assert_right(table, good, right)
        counts = batcher.statistics()
    assert (counts.answered, counts.failed) == (1, 1)


def test_closing_waits_for_all_chunks(replicas: TwoReplicas) -> None:
    batcher = mg.MicroBatcher(replicas)
    replicas.held.clear()
    futures = batcher.submit_many(some_queries(2 * WIDTH))
    begun(replicas, 2)
    assert not batcher.close(timeout=0)
    replicas.held.set()
    assert batcher.close(SECONDS)
    assert all(future.done() for future in futures)
    assert not named(NAME)


def test_closing_from_a_callback_waits_for_no_thread(replicas: TwoReplicas) -> None:
    batcher = mg.MicroBatcher(replicas)
    replicas.held.clear()
    futures = batcher.submit_many(some_queries(2 * WIDTH))
    begun(replicas, 2)
    for future in futures:
        future.add_done_callback(lambda _: batcher.close())
    replicas.held.set()
    assert not wait(futures, SECONDS).not_done
    assert batcher.close(SECONDS)


def test_a_dropped_batcher_ends_all_its_threads(replicas: TwoReplicas) -> None:
    batcher = mg.MicroBatcher(replicas)
    replicas.held.clear()
    futures = batcher.submit_many(some_queries(2 * WIDTH))
    begun(replicas, 2)
    threads = named(NAME)
    del batcher
    replicas.held.set()
    assert not wait(futures, SECONDS).not_done
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)


def test_many_callers_get_their_own_pages(replicas: TwoReplicas, table: Bytes) -> None:
    callers, each = 8, 12

    def ask(caller: int) -> None:
        for query in some_queries(each, seed=caller):
            pages = batcher.submit(query).result(SECONDS).pages
            np.testing.assert_array_equal(pages, naive_answers(table, [query]))

    with mg.MicroBatcher(replicas) as batcher, ThreadPoolExecutor(callers) as pool:
        list(pool.map(ask, range(callers)))
        assert batcher.statistics().answered == callers * each
