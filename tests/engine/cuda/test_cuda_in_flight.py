"""The GPU engine's calls beside each other, over the stand-in driver: each has lanes of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from gpu_epochs import AFTER, ARRAY, BATCH, CONTENTS, INDICES, SECONDS, assert_answers, open_gpu
from naive import Bytes, naive_answers
from standin_driver import StandIn

PAIRS = [BATCH[:2], BATCH[2:4], BATCH[1:3]]  # a chunk each
LONG = BATCH * 8  # twenty chunks


@pytest.fixture
def held(gpu: StandIn) -> StandIn:
    """A device on which a test can hold all kernels."""
    return gpu


@pytest.fixture
def callers(gpu: StandIn) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(6) as pool:
        yield pool
        gpu.set(held=False)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000 * SECONDS):
        if condition():
            return
        threading.Event().wait(0.001)
    pytest.fail("it never came")


def launched(gpu: StandIn, count: int) -> list[int]:
    """Wait for so many launches that none has ended, and return their streams."""
    until(lambda: len(gpu.launches()) >= count)
    return [launch.stream for launch in gpu.launches()]


def assert_right(calls: list[Future[mg.Answer]], batches: Any, array: Bytes = ARRAY) -> None:
    for call, batch in zip(calls, batches, strict=True):
        np.testing.assert_array_equal(call.result(SECONDS).pages, naive_answers(array, batch))


def hold(gpu: StandIn) -> None:
    gpu.reset_log()
    gpu.set(held=True)


# Lanes


def test_a_gpu_takes_a_call_for_each_lane_and_is_one_device(gpu: StandIn) -> None:
    with open_gpu() as engine:
        assert (engine.max_in_flight, engine.replicas) == (2, 1)
        with mg.MicroBatcher(engine) as batcher:
            assert batcher.max_in_flight == 2


def test_chunks_of_two_callers_are_in_two_lanes_before_either_has_ended(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as engine:
        hold(held)
        calls = [callers.submit(engine.answer, batch) for batch in PAIRS]
        streams = launched(held, 2)
        assert len(set(streams)) == len(streams) == 2
        assert not any(call.done() for call in calls)
        held.set(held=False)
        assert_right(calls, PAIRS)
        assert len({launch.stream for launch in held.launches()}) == 2


def test_a_batch_of_many_chunks_has_both_lanes_while_it_is_alone(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as engine:
        hold(held)
        call = callers.submit(engine.answer, LONG)
        assert len(set(launched(held, 2))) == 2
        held.set(held=False)
        assert_right([call], [LONG])


def test_a_batch_of_many_chunks_leaves_a_lane_to_who_comes_later(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    order: list[str] = []

    def answer(name: str, batch: list[mg.Query]) -> mg.Answer:
        found = engine.answer(batch)
        order.append(name)
        return found

    with open_gpu() as engine:
        lanes = vars(engine)["_scanner"].lanes
        hold(held)
        calls = [callers.submit(answer, "long", LONG)]
        launched(held, 2)
        calls.append(callers.submit(answer, "short", PAIRS[0]))
        until(lambda: lanes.waiting() == 1)
        held.set(held=False)
        assert_right(calls, [LONG, PAIRS[0]])
    assert order == ["short", "long"]


@pytest.mark.parametrize(
    "options", [{}, {"lanes": 1}, {"lanes": 4}, {"max_micro_batch": 8, "lanes": 4, "graph": True}]
)
def test_callers_with_any_strategy_get_their_own_answers(
    gpu: StandIn, callers: ThreadPoolExecutor, options: dict[str, Any]
) -> None:
    gpu.set(schedule="random")
    batches = [BATCH[at:] + BATCH[:at] for at in range(5)] * 4
    with open_gpu() as engine:
        calls = [callers.submit(engine.answer, batch, **options) for batch in batches]
        calls += [callers.submit(engine.answer, batch) for batch in batches]
        read = [callers.submit(engine.read_pages) for _ in range(3)]
        assert_right(calls, batches * 2)
        assert {one.result(SECONDS) for one in read} == {engine.read_pages()}


# The batcher


def test_under_load_both_lanes_of_a_batcher_have_full_chunks(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as engine, mg.MicroBatcher(engine) as batcher:
        hold(held)
        futures = batcher.submit_many(BATCH + BATCH[:1])
        assert len(set(launched(held, 2))) == 2
        counts = batcher.statistics()
        assert (counts.in_flight, counts.running, counts.queued) == (2, 4, 2)
        held.set(held=False)
        assert_right(futures, [[query] for query in BATCH + BATCH[:1]])
        assert batcher.statistics().chunk_sizes == {2: 3}


def test_a_lone_query_of_a_batcher_is_not_launched_behind_one_that_runs(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as engine, mg.MicroBatcher(engine) as batcher:
        hold(held)
        first = callers.submit(batcher.submit, BATCH[0])
        launched(held, 1)
        futures = [batcher.submit(BATCH[1])]
        assert (batcher.statistics().in_flight, batcher.statistics().queued) == (1, 1)
        futures.append(batcher.submit(BATCH[2]))
        launched(held, 2)
        assert batcher.statistics().in_flight == 2
        held.set(held=False)
        futures.insert(0, first.result(SECONDS))
        assert_right(futures, [[query] for query in BATCH[:3]])
        assert batcher.statistics().chunk_sizes == {1: 1, 2: 1}


# Epochs


def test_pages_are_replaced_when_no_lane_is_in_use(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as engine:
        hold(held)
        calls = [callers.submit(engine.answer, batch) for batch in PAIRS[:2]]
        launched(held, 2)
        change = callers.submit(engine.replace_pages, INDICES, CONTENTS, 1)
        until(lambda: engine._calls.waiting_alone() == 1)
        later = callers.submit(engine.answer, PAIRS[2])
        assert len(held.launches()) == 2
        held.set(held=False)
        change.result(SECONDS)
        assert_right(calls, PAIRS[:2])
        assert_right([later], [PAIRS[2]], AFTER)
        assert later.result().epoch == 1


def test_engines_that_share_a_device_answer_beside_each_other(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as old, old.next_epoch(INDICES, CONTENTS, 1) as new:
        hold(held)
        calls = [callers.submit(engine.answer, PAIRS[0]) for engine in (old, new)]
        assert len(set(launched(held, 2))) == 2
        change = callers.submit(new.replace_pages, INDICES, ARRAY[INDICES], 2)
        held.set(held=False)
        assert_right(calls[:1], PAIRS[:1])
        assert_right(calls[1:], PAIRS[:1], AFTER)
        change.result(SECONDS)
        assert_answers(old, ARRAY)
        assert_answers(new, ARRAY)


# Failures


def test_a_launch_that_fails_leaves_the_other_call_alone(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    with open_gpu() as engine:
        hold(held)
        good = callers.submit(engine.answer, PAIRS[0])
        launched(held, 1)
        held.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
        bad = callers.submit(engine.answer, PAIRS[1])
        assert isinstance(bad.exception(SECONDS), mg.DeviceError)
        assert not engine.closed
        held.set(held=False)
        assert_right([good], PAIRS[:1])
        # Its lane is cleaned before it is used again.
        assert_right([callers.submit(engine.answer, batch) for batch in PAIRS * 2], PAIRS * 2)


def test_a_device_that_is_lost_fails_all_calls_and_closes_the_engine(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    engine = open_gpu()
    hold(held)
    held.inject("cuLaunchKernel", "CUDA_ERROR_LAUNCH_FAILED", call=2, late=True)
    calls = [callers.submit(engine.answer, batch) for batch in PAIRS]
    launched(held, 2)
    held.set(held=False)
    # A call that ended before the device was lost has its right answer.
    for call, batch in zip(calls, PAIRS, strict=True):
        error = call.exception(SECONDS)
        assert error is None or isinstance(error, mg.DeviceError | mg.EngineClosedError)
        if error is None:
            assert_right([call], [batch])
    assert any(isinstance(call.exception(), mg.DeviceError) for call in calls)
    with pytest.raises(mg.EngineClosedError, match="its device failed"):
        engine.answer(BATCH)
    held.reset()


def test_closing_waits_for_the_calls_in_all_lanes(
    held: StandIn, callers: ThreadPoolExecutor
) -> None:
    engine = open_gpu()
    hold(held)
    calls = [callers.submit(engine.answer, batch) for batch in PAIRS[:2]]
    launched(held, 2)
    end = callers.submit(engine.close)
    until(lambda: engine._calls.waiting_alone() == 1)
    assert not end.done()
    held.set(held=False)
    end.result(SECONDS)
    assert_right(calls, PAIRS[:2])
