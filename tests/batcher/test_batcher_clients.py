"""MicroBatcher's clients: a share of the queue each, turns, and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import wait

import numpy as np
import pytest

import morphogen as mg
from held_engine import SECONDS, HeldEngine
from naive import Bytes, naive_answers, open_engine, random_pages, random_rows

PAGES, PAGE_SIZE = 700, 48


@pytest.fixture(scope="module")
def table() -> Bytes:
    return random_pages(PAGES, PAGE_SIZE)


@pytest.fixture
def engine(table: Bytes) -> Iterator[HeldEngine]:
    """An engine that is held within a first chunk."""
    with HeldEngine(open_engine(table, threads=1), 4) as held:
        held.held.clear()
        yield held
        held.held.set()


def some_queries(total: int, seed: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, PAGES, seed), PAGES)[0]


def busy(engine: HeldEngine, batcher: mg.MicroBatcher) -> None:
    batcher.submit_many(some_queries(1, seed=99))
    assert engine.begun.acquire(timeout=SECONDS)


def test_one_client_does_not_wait_for_all_queries_of_another(
    engine: HeldEngine, table: Bytes
) -> None:
    greedy, (lone,) = some_queries(40), some_queries(1, seed=1)
    with mg.MicroBatcher(engine) as batcher:
        busy(engine, batcher)
        futures = batcher.submit_many(greedy, client="greedy")
        future = batcher.submit(lone, client="lone")
        engine.held.set()
        np.testing.assert_array_equal(future.result(SECONDS).pages, naive_answers(table, [lone]))
        pages = np.concatenate([other.result(SECONDS).pages for other in futures])
        np.testing.assert_array_equal(pages, naive_answers(table, greedy))
    chunks = [queries for queries, _ in engine.calls]
    assert lone in chunks[1]
    asked = [query for chunk in chunks[1:] for query in chunk if query is not lone]
    assert asked == greedy


def test_clients_take_turns(engine: HeldEngine) -> None:
    one, other = some_queries(8, seed=1), some_queries(8, seed=2)
    with mg.MicroBatcher(engine) as batcher:
        busy(engine, batcher)
        batcher.submit_many(one, client="one")
        batcher.submit_many(other, client="other")
        engine.held.set()
    asked = [query for queries, _ in engine.calls[1:] for query in queries]
    assert asked == [query for pair in zip(one, other, strict=True) for query in pair]


def test_a_client_has_a_bound_of_its_own(engine: HeldEngine) -> None:
    with mg.MicroBatcher(engine, max_queued=10, max_queued_per_client=4) as batcher:
        busy(engine, batcher)
        batcher.submit_many(some_queries(3), client="a")
        with pytest.raises(
            mg.OverloadedError, match=r"^3 queries of this client wait, and at most 4 may: 2 more"
        ):
            batcher.submit_many(some_queries(2), client="a")
        batcher.submit_many(some_queries(4), client="b")
        batcher.submit(some_queries(1)[0], client="a")
        with pytest.raises(mg.OverloadedError):
            asyncio.run(batcher.answer(some_queries(1)[0], client="a"))
        statistics = batcher.statistics()
        assert (statistics.queued, statistics.refused) == (8, 3)
        engine.held.set()
    assert batcher.statistics().answered == 9
    assert batcher.max_queued_per_client == 4


def test_a_full_queue_has_room_for_who_asks_for_less(engine: HeldEngine, table: Bytes) -> None:
    (lone,) = some_queries(1, seed=1)
    with mg.MicroBatcher(engine, max_queued=6) as batcher:
        busy(engine, batcher)
        greedy = batcher.submit_many(some_queries(4), client="greedy")
        others = batcher.submit_many(some_queries(2), client="other")
        future = batcher.submit(lone, client="lone")
        with pytest.raises(mg.OverloadedError, match=r"^6 queries wait, and at most 6 may: 1 more"):
            batcher.submit(some_queries(1)[0], client="greedy")
        engine.held.set()
        with pytest.raises(mg.OverloadedError, match=r"^the queue is full"):
            greedy[-1].result(SECONDS)
        assert not wait([*greedy[:-1], *others], SECONDS).not_done
        assert all(other.exception() is None for other in [*greedy[:-1], *others])
        np.testing.assert_array_equal(future.result(SECONDS).pages, naive_answers(table, [lone]))
        statistics = batcher.statistics()
    assert (statistics.answered, statistics.refused, statistics.queued) == (7, 2, 0)


def test_a_request_that_had_to_go_in_part_is_taken_out_whole(engine: HeldEngine) -> None:
    async def ask(batcher: mg.MicroBatcher) -> None:
        greedy = asyncio.create_task(batcher.answer_many(some_queries(4), client="greedy"))
        while batcher.statistics().queued < 4:
            await asyncio.sleep(0)
        lone = asyncio.create_task(batcher.answer(some_queries(1)[0], client="lone"))
        while batcher.statistics().refused < 1:
            await asyncio.sleep(0)
        engine.held.set()
        with pytest.raises(mg.OverloadedError, match=r"^the queue is full"):
            await greedy
        assert (await lone).pages.any()

    with mg.MicroBatcher(engine, max_queued=4) as batcher:
        busy(engine, batcher)
        asyncio.run(ask(batcher))
        statistics = batcher.statistics()
    assert statistics.queued == 0
    assert (statistics.refused, statistics.expired, statistics.failed) == (1, 0, 0)
    assert statistics.answered + statistics.cancelled == 5


def test_a_lone_query_of_a_client_runs_at_once_on_its_own_thread(engine: HeldEngine) -> None:
    engine.held.set()
    with mg.MicroBatcher(engine) as batcher:
        assert batcher.submit(some_queries(1)[0], client="a").done()


def test_what_is_no_client_or_no_bound(engine: HeldEngine) -> None:
    with (
        mg.MicroBatcher(engine) as batcher,
        pytest.raises(TypeError, match=r"^client must be a str, not int$"),
    ):
        batcher.submit(some_queries(1)[0], client=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_queued_per_client must be in 1..10, not 11$"):
        mg.MicroBatcher(engine, max_queued=10, max_queued_per_client=11)
    with pytest.raises(TypeError, match=r"^max_queued_per_client must be an int, not str$"):
        mg.MicroBatcher(engine, max_queued_per_client="3")  # type: ignore[arg-type]
    assert engine.calls == []
