"""MicroBatcher's bounds: of what waits, and of how long it waits."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import CancelledError, wait

import pytest

import morphogen as mg
from held_batcher import PAGE_SIZE, Busy, engine, result, some_queries, table
from held_engine import SECONDS, HeldEngine

__all__ = ["engine", "table"]


# Bounds


def test_more_than_may_wait_is_refused(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine, max_queued=3) as batcher:
        busy = Busy(engine, batcher)
        futures = batcher.submit_many(some_queries(2))
        with pytest.raises(mg.OverloadedError, match=r"^2 queries wait, and at most 3 may: 2 more"):
            batcher.submit_many(some_queries(2))
        futures.append(batcher.submit(some_queries(1)[0]))
        with pytest.raises(mg.OverloadedError, match=r"^3 queries wait"):
            batcher.submit(some_queries(1)[0])
        with pytest.raises(mg.OverloadedError):
            asyncio.run(batcher.answer(some_queries(1)[0]))
        statistics = batcher.statistics()
        assert (statistics.queued, statistics.refused) == (3, 4)
        busy.release()
        assert not wait(futures, SECONDS).not_done
        assert batcher.statistics().answered == 4


def test_a_cancelled_query_leaves_its_place_to_another(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine, max_queued=2) as batcher:
        busy = Busy(engine, batcher)
        first, second = batcher.submit_many(some_queries(2))
        assert first.cancel()
        third = batcher.submit(some_queries(1)[0])
        assert batcher.statistics().queued == 2
        busy.release()
        assert result(second).shape == result(third).shape
        with pytest.raises(CancelledError):
            first.result(SECONDS)
        assert engine.chunks == [1, 2]
        assert batcher.statistics().cancelled == 1


def test_a_chunk_that_runs_cannot_be_cancelled(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        assert not busy.first.cancel()
        busy.release()


def test_a_cancelled_task_takes_its_queries_out(engine: HeldEngine) -> None:
    async def ask(batcher: mg.MicroBatcher) -> None:
        task = asyncio.create_task(batcher.answer_many(some_queries(3)))
        while batcher.statistics().queued < 3:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        asyncio.run(ask(batcher))
        assert batcher.statistics().queued == 0
        assert batcher.statistics().cancelled == 3
        busy.release()
    assert engine.chunks == [1]


# Deadlines


def test_a_query_that_waited_too_long_is_not_answered(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        late = batcher.submit(some_queries(1)[0], timeout=0)
        patient = batcher.submit(some_queries(1)[0], timeout=SECONDS)
        busy.release()
        with pytest.raises(mg.DeadlineError, match=r"^the query waited longer than its time-out$"):
            late.result(SECONDS)
        assert result(patient).shape == (1, 3, PAGE_SIZE)
        assert engine.chunks == [1, 1]
        assert batcher.statistics().expired == 1
    assert issubclass(mg.DeadlineError, TimeoutError)


def test_a_task_hears_of_its_deadline_while_a_chunk_still_runs(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        busy = Busy(engine, batcher)
        with pytest.raises(mg.DeadlineError):
            asyncio.run(batcher.answer(some_queries(1)[0], timeout=0.01))
        statistics = batcher.statistics()
        assert (statistics.expired, statistics.queued, statistics.running) == (1, 0, 1)
        busy.release()
    assert engine.chunks == [1]


def test_a_query_that_begins_in_time_is_answered(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine) as batcher:
        assert result(batcher.submit(some_queries(1)[0], timeout=0)).shape == (1, 3, PAGE_SIZE)


@pytest.mark.parametrize("timeout", [-1, -math.inf, math.nan])
def test_impossible_deadlines(engine: HeldEngine, timeout: float) -> None:
    with mg.MicroBatcher(engine) as batcher:
        with pytest.raises(ValueError, match=r"^timeout must be 0 or more seconds, not "):
            batcher.submit(some_queries(1)[0], timeout=timeout)
        assert batcher.statistics().answered == 0
