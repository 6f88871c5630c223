"""MicroBatcher: concurrent callers share chunks, nothing is lost, nothing waits without need."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from held_batcher import PAGE_SIZE, PAGES, Busy, engine, result, some_queries, table
from held_engine import SECONDS, HeldEngine
from naive import Bytes, naive_answers, open_engine

__all__ = ["engine", "table"]

# A lone query


def test_a_lone_query_runs_at_once_on_its_own_thread(engine: HeldEngine, table: Bytes) -> None:
    with mg.MicroBatcher(engine) as batcher:
        threads = threading.active_count()
        for query in some_queries(5):
            future = batcher.submit(query)
            assert future.done()
            answer = future.result()
            np.testing.assert_array_equal(answer.pages, naive_answers(table, [query]))
            assert answer.pages.shape == (1, 3, PAGE_SIZE)
            assert (answer.epoch, answer.num_pages) == (0, PAGES)
            assert answer.micro_batch_sizes == (1,)
            assert answer.party == 0
        assert {name for _, name in engine.calls} == {threading.current_thread().name}
        assert threading.active_count() == threads
        assert batcher.statistics().chunk_sizes == {1: 5}
        assert batcher.statistics().mean_chunk_size == 1.0


def test_a_lone_task_is_answered_off_the_event_loop(engine: HeldEngine, table: Bytes) -> None:
    (query,) = some_queries(1)

    async def ask() -> mg.Answer:
        with mg.MicroBatcher(engine) as batcher:
            return await batcher.answer(query)

    np.testing.assert_array_equal(asyncio.run(ask()).pages, naive_answers(table, [query]))
    assert engine.calls[0][1] == "morphogen-batcher"


# Sharing


@pytest.mark.parametrize(
    ("width", "waiting", "chunks"),
    [(4, 0, [1]), (4, 1, [1, 1]), (4, 9, [1, 4, 4, 1]), (2, 5, [1, 2, 2, 1]), (1, 3, [1] * 4)],
)
def test_what_arrives_during_a_chunk_shares_the_next_in_order_of_arrival(
    engine: HeldEngine, table: Bytes, width: int, waiting: int, chunks: list[int]
) -> None:
    queries = some_queries(waiting)
    with mg.MicroBatcher(engine, max_micro_batch=width) as batcher:
        busy = Busy(engine, batcher)
        futures = [batcher.submit(query) for query in queries]
        assert batcher.statistics().queued == waiting
        assert batcher.statistics().running == 1
        busy.release()
        for query, future in zip(queries, futures, strict=True):
            np.testing.assert_array_equal(result(future), naive_answers(table, [query]))
        assert engine.chunks == chunks
        assert [query for chunk, _ in engine.calls[1:] for query in chunk] == queries
        sizes = [future.result().micro_batch_sizes for future in futures]
        assert sizes == [(size,) for size in chunks[1:] for _ in range(size)]
        statistics = batcher.statistics()
        assert statistics.chunk_sizes == {size: chunks.count(size) for size in set(chunks)}
        assert statistics.answered == waiting + 1
        assert statistics.mean_chunk_size == pytest.approx(sum(chunks) / len(chunks))
        assert statistics.running_seconds > 0
        assert (statistics.queued, statistics.running) == (0, 0)


def test_a_batch_of_one_caller_shares_chunks_too(engine: HeldEngine, table: Bytes) -> None:
    queries = some_queries(6)
    with mg.MicroBatcher(engine) as batcher:
        futures = batcher.submit_many(queries)
        pages = np.concatenate([result(future) for future in futures])
    np.testing.assert_array_equal(pages, naive_answers(table, queries))
    assert engine.chunks == [4, 2]


def test_an_empty_batch(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        assert batcher.submit_many([]) == []
        assert asyncio.run(batcher.answer_many([])) == []
    assert engine.chunks == []


def test_a_chunk_has_queries_of_one_number_of_keys(engine: HeldEngine, table: Bytes) -> None:
    queries = [some_queries(1, seed, keys)[0] for seed, keys in enumerate([3, 3, 1, 1, 1, 3])]
    with mg.MicroBatcher(engine) as batcher:
        futures = batcher.submit_many(queries)
        for query, future in zip(queries, futures, strict=True):
            np.testing.assert_array_equal(result(future), naive_answers(table, [query]))
    assert engine.chunks == [2, 3, 1]


def test_answers_do_not_keep_one_another(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        first, second = (result(future) for future in batcher.submit_many(some_queries(2)))
    assert first.base is None
    assert second.base is None
    assert not np.may_share_memory(first, second)


def test_many_threads_and_tasks_each_get_their_own_pages(table: Bytes) -> None:
    width, each, callers = 3, 20, 12
    with open_engine(table, threads=1) as engine:
        batcher = mg.MicroBatcher(engine, max_micro_batch=width)

        def ask(caller: int) -> None:
            for query in some_queries(each, seed=caller):
                np.testing.assert_array_equal(
                    result(batcher.submit(query)), naive_answers(table, [query])
                )

        async def ask_from_a_task(caller: int) -> None:
            for query in some_queries(each, seed=caller):
                answer = await batcher.answer(query, timeout=SECONDS)
                np.testing.assert_array_equal(answer.pages, naive_answers(table, [query]))

        async def tasks() -> None:
            await asyncio.gather(*map(ask_from_a_task, range(100, 100 + callers)))

        with batcher, ThreadPoolExecutor(callers) as pool:
            asked = [pool.submit(ask, caller) for caller in range(callers)]
            asyncio.run(tasks())
            for done in asked:
                done.result(SECONDS)
        statistics = batcher.statistics()
    assert statistics.answered == 2 * callers * each
    assert sum(n * size for size, n in statistics.chunk_sizes.items()) == statistics.answered
    assert max(statistics.chunk_sizes) <= width


# Bad input, before anything is queued


def test_what_is_no_query(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        for submit in (batcher.submit, lambda bad: batcher.submit_many([bad])):
            with pytest.raises(TypeError, match=r"^a query must be a Query, not str$"):
                submit("query")  # type: ignore[arg-type]
    assert engine.chunks == []


def test_a_key_of_another_table_fails_its_caller_alone(engine: HeldEngine, table: Bytes) -> None:
    stranger = mg.make_query([1], 5000)[0]
    good = some_queries(1)[0]
    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        future = batcher.submit(good)
        with pytest.raises(mg.KeyDomainError):
            batcher.submit(stranger)
        with pytest.raises(mg.KeyDomainError):
            batcher.submit_many([good, stranger])
        busy.release()
        np.testing.assert_array_equal(result(future), naive_answers(table, [good]))
    assert engine.chunks == [1, 1]


@pytest.mark.parametrize("keys", [(b"MGK1",), ("text",), (), [b""]])
def test_keys_set_past_the_constructor_fail_their_caller_alone(
    engine: HeldEngine, keys: Any
) -> None:
    good, forged = some_queries(2)
    object.__setattr__(forged, "keys", keys)
    with mg.MicroBatcher(engine) as batcher:
        with pytest.raises((mg.InvalidKeyError, TypeError, ValueError)):
            batcher.submit(forged)
        with pytest.raises((mg.InvalidKeyError, TypeError, ValueError)):
            batcher.submit_many([good, forged])
        object.__setattr__(forged, "keys", (bytearray(good.keys[0]),))
        assert result(batcher.submit(forged)).any()
    assert engine.chunks == [1]


@pytest.mark.parametrize("width", [0, -1, 5])
def test_widths_that_the_engine_does_not_have(engine: HeldEngine, width: int) -> None:
    with pytest.raises(ValueError, match=rf"^max_micro_batch must be in 1..4 on cpu, not {width}$"):
        mg.MicroBatcher(engine, max_micro_batch=width)


def test_arguments_of_wrong_types_and_ranges(engine: HeldEngine) -> None:
    with pytest.raises(TypeError, match=r"^engine must be an Engine, not str$"):
        mg.MicroBatcher("cpu")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^max_queued must be an int, not str$"):
        mg.MicroBatcher(engine, max_queued="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_queued must be 1 or more, not 0$"):
        mg.MicroBatcher(engine, max_queued=0)


# Errors of the engine


def test_an_error_of_the_engine_reaches_all_of_its_chunk_and_no_other(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        futures = batcher.submit_many(some_queries(3))
        engine.error = mg.DeviceError("broken")
        engine.held.set()
        for future in [busy.first, *futures]:
            assert isinstance(future.exception(SECONDS), mg.DeviceError)
        engine.error = None
        assert result(batcher.submit(some_queries(1)[0])).shape == (1, 3, PAGE_SIZE)
        statistics = batcher.statistics()
        assert (statistics.failed, statistics.answered) == (4, 1)
        assert statistics.chunk_sizes == {1: 1}


def test_an_error_on_the_own_thread_is_the_futures(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        engine.error = mg.DeviceError("broken")
        future = batcher.submit(some_queries(1)[0])
        assert isinstance(future.exception(), mg.DeviceError)


def test_a_callback_may_submit(engine: HeldEngine) -> None:
    followers: list[Future[mg.Answer]] = []
    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        first = batcher.submit(some_queries(1)[0])
        done = threading.Event()

        def follow(_: Future[mg.Answer]) -> None:
            followers.append(batcher.submit(some_queries(1)[0]))
            done.set()

        first.add_done_callback(follow)
        busy.release()
        assert done.wait(SECONDS)
        assert result(followers[0]).shape == (1, 3, PAGE_SIZE)
