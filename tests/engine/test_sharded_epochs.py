"""Shards of a sharded engine are refused, replaced, and go on to other epochs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from fake_shards import Answers, FakeShard, World, fakes, sharded
from morphogen.engine.sharded import ShardedEngine
from morphogen.sharding import ShardRange
from naive import Bytes, naive_answers, random_pages, random_rows

ARRAY = random_pages(2000, 24)
QUERIES = mg.make_queries(random_rows(3, 2, 2000), 2000)[0]


def assert_right(engine: ShardedEngine, array: Bytes = ARRAY, epoch: int = 0) -> None:
    answer = engine.answer(QUERIES)
    assert answer.epoch == engine.table.epoch == epoch
    assert np.array_equal(answer.pages, naive_answers(array, QUERIES))


def changed(indices: Any) -> tuple[Bytes, Bytes]:
    contents = random_pages(len(indices), ARRAY.shape[1], seed=1)
    after = ARRAY.copy()
    after[indices] = contents
    return contents, after


# Epochs

CHANGES = {
    "one page": [1024],
    "both sides of a bound": [1023, 1024],
    "the ends": [0, 1999],
    "one shard": [3, 5, 700],
    "every third page": list(range(0, 2000, 3)),
    "no page": [],
}


@pytest.mark.parametrize("name", CHANGES)
def test_both_epochs_are_answered(name: str) -> None:
    contents, after = changed(CHANGES[name])
    world = World()
    with sharded(world, fakes(world, ARRAY, 2, 2), timeout=5.0, hedge=1.0) as old:
        with old.next_epoch(CHANGES[name], contents, 5, root=b"new") as new:
            assert_right(old)
            assert_right(new, after, 5)
            assert new.root == b"new"
            assert vars(new)["_timeout"], vars(new)["_hedge"] == (5.0, 1.0)
        assert_right(old)


@pytest.mark.parametrize("name", CHANGES)
def test_pages_are_replaced(name: str) -> None:
    contents, after = changed(CHANGES[name])
    world = World()
    shards = fakes(world, ARRAY, 3, 2)
    with sharded(world, shards) as engine:
        assert_right(engine)
        engine.replace_pages(CHANGES[name], contents, 5, root=b"new")
        assert all(replica.closed for replicas in shards for replica in replicas)
        assert_right(engine, after, 5)
        assert engine.root == b"new"
        assert engine.statistics().passes == 2


def test_a_replica_that_cannot_open_the_epoch_is_not_usable_in_it() -> None:
    contents, after = changed([7, 1500])
    world = World()
    shards = fakes(world, ARRAY, 2, 2)
    shards[1][0].refuses_next = MemoryError("too little")
    with sharded(world, shards) as old, old.next_epoch([7, 1500], contents, 1) as new:
        assert new.statistics().usable == (2, 1)
        assert_right(new, after, 1)
        assert_right(old)
        assert old.statistics().usable == (2, 2)
        whole = fakes(world, after, 2, epoch=1)[1][0]
        new.replace_replica(1, 0, whole)
        assert new.statistics().usable == (2, 2)
        assert_right(new, after, 1)


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
def test_an_epoch_that_a_whole_shard_cannot_open_is_opened_nowhere(method: str) -> None:
    contents, _ = changed([7, 1500])
    world = World()
    shards = fakes(world, ARRAY, 2, 2)
    for replica in shards[1]:
        replica.refuses_next = MemoryError("too little")
    with sharded(world, shards) as engine:
        message = r"^no replica of pages 1024 to 1999 can open epoch 1: too little$"
        with pytest.raises(mg.ShardUnavailableError, match=message):
            getattr(engine, method)([7, 1500], contents, 1)
        opened = [one for replica in shards[0] for one in replica.followers]
        assert len(opened) == 2
        assert all(one.closed for one in opened)
        assert_right(engine)


@pytest.mark.parametrize("method", ["replace_pages", "next_epoch"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([7], np.ones((1, 24), np.uint8), 0), ValueError, r"^epoch must be another than .*, 0$"),
        (([2000], np.ones((1, 24), np.uint8), 1), ValueError, "2000"),
        (([7], np.ones((1, 25), np.uint8), 1), ValueError, "shape"),
        (([7], np.ones((1, 24), np.uint8), "1"), TypeError, "^epoch must be an int"),
    ],
    ids=["the same epoch", "an index beyond the pages", "longer pages", "no epoch"],
)
def test_changes_that_will_not_do_reach_no_shard(
    method: str, arguments: Any, error: type[Exception], message: str
) -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    with sharded(world, shards) as engine:
        with pytest.raises(error, match=message):
            getattr(engine, method)(*arguments)
        assert not any(replica.followers for replicas in shards for replica in replicas)
        assert_right(engine)


def test_another_thread_that_replaced_pages_first_is_followed() -> None:
    first, after_first = changed([7])
    second = random_pages(1, 24, seed=2)
    world = World()

    class Slow(FakeShard):
        """While it opens an epoch, another thread replaces pages."""

        def next_epoch(self, *arguments: Any) -> FakeShard:
            if arguments[2] == 2:
                engine.replace_pages([7], first, 1)
            return super().next_epoch(*arguments)

    shards: list[list[FakeShard]] = [[Slow(world, ARRAY, ShardRange(0, 2000))]]
    with sharded(world, shards) as engine:
        engine.replace_pages([1999], second, 2)
        after_first[1999] = second[0]
        assert_right(engine, after_first, 2)


def test_pages_at_hand_go_on_with_the_shards() -> None:
    contents, after = changed([7, 1500])
    world = World()
    pages = mg.PageMatrix(ARRAY)
    with sharded(world, fakes(world, ARRAY, 2), pages=pages) as engine:
        with engine.next_epoch([7, 1500], contents, 1) as new:
            assert np.array_equal(new.pages.body, after)
            assert engine.pages is pages
        engine.replace_pages([7, 1500], contents, 1)
        assert np.array_equal(engine.pages.body, after)
        assert engine.pages.epoch == 1
    engine = sharded(world, fakes(world, ARRAY, 2))
    with pytest.raises(mg.MorphogenError, match="has no pages of its own"):
        _ = engine.pages


# The end


def test_close_closes_every_transport_even_if_one_fails() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2)

    def fail() -> None:
        raise OSError("gone")

    shards[1][0].close = fail  # type: ignore[method-assign]
    engine = sharded(world, shards)
    with pytest.raises(OSError, match="gone"):
        engine.close()
    assert engine.closed
    assert [one.closed for replicas in shards for one in replicas] == [True, True, False, True]


def test_a_closed_engine_asks_no_shard() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    engine = sharded(world, shards)
    engine.close()
    new = fakes(world, ARRAY, 2)[0][0]
    for use in (
        lambda: engine.answer(QUERIES),
        engine.read_pages,
        lambda: engine.replace_pages([], np.empty((0, 24), np.uint8), 1),
        lambda: engine.next_epoch([], np.empty((0, 24), np.uint8), 1),
        lambda: engine.replace_replica(0, 0, new),
    ):
        with pytest.raises(mg.EngineClosedError, match=r"^this engine is closed$"):
            use()
    assert not any(replica.jobs for replicas in shards for replica in replicas)


def test_a_forked_child_reaches_no_shard() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, behaviours={(0, 0): [Answers(at_once=True)] * 9})
    with sharded(world, shards) as engine:
        child = os.fork()
        if child == 0:
            status = 0
            for use in (
                lambda: engine.answer(QUERIES),
                engine.read_pages,
                engine.statistics,
                lambda: engine.replace_pages([], np.empty((0, 24), np.uint8), 1),
                lambda: engine.next_epoch([], np.empty((0, 24), np.uint8), 1),
                lambda: engine.replace_replica(0, 0, shards[0][0]),
            ):
                try:
                    use()
                except mg.EngineClosedError as error:
                    status |= "belongs to process" not in str(error)
                else:
                    status |= 2
            engine.close()
            status |= 4 * any(one.jobs or one.closed for some in shards for one in some)
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_right(engine)
