"""A sharded engine over replicas that do what a test says: its answers, and whom it asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from fake_shards import (
    DROPS,
    Answers,
    Fails,
    FakeShard,
    Lies,
    World,
    fakes,
    sharded,
)
from morphogen.engine.sharded import ShardedEngine
from morphogen.pages import TableShape
from morphogen.sharding import Coverage
from naive import Bytes, naive_answers, random_pages, random_rows

ARRAY = random_pages(2000, 24)


def batch_for(array: Bytes, total: int = 3, keys: int = 2, party: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, keys, len(array)), len(array))[party]


QUERIES = batch_for(ARRAY, 5)
RIGHT = naive_answers(ARRAY, QUERIES)


def assert_right(engine: ShardedEngine, total: int = 5, **options: Any) -> None:
    answer = engine.answer(QUERIES[:total], **options)
    assert np.array_equal(answer.pages, RIGHT[:total])


# Answers


@pytest.mark.parametrize("num_pages", [1, 511, 512, 513, 4096, 4099])
@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_the_answer_is_that_of_one_engine(num_pages: int, shards: int) -> None:
    shards = min(shards, -(-num_pages // 512))
    array = random_pages(num_pages, 9)
    world = World()
    with sharded(world, fakes(world, array, shards)) as engine:
        for total in (0, 1, 2, 7, 32):
            for keys in (1, 3):
                queries = batch_for(array, total, keys, party=total % 2)
                with mg.open_engine(mg.PageMatrix(array), "cpu") as one:
                    right = one.answer(queries)
                found = engine.answer(queries)
                assert found.pages.tobytes() == right.pages.tobytes()
                assert found.pages.shape == right.pages.shape
                assert (found.epoch, found.num_pages, found.party) == (0, num_pages, right.party)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_chunks_change_no_byte(width: int) -> None:
    world = World()
    with sharded(world, fakes(world, ARRAY, 3, 2)) as engine:
        out = np.full_like(RIGHT, 0xA5)
        answer = engine.answer(QUERIES, out=out, max_micro_batch=width)
        assert answer.pages is out
        assert np.array_equal(out, RIGHT)
        assert sum(answer.micro_batch_sizes) == 5
        assert max(answer.micro_batch_sizes) == width


def test_all_pages_are_read() -> None:
    for num_pages, page_size in ((2000, 24), (1025, 3), (1, 1)):
        array = random_pages(num_pages, page_size)
        world = World()
        shards = fakes(world, array, -(-num_pages // 512))
        with sharded(world, shards) as engine, mg.open_engine(mg.PageMatrix(array), "cpu") as one:
            assert engine.read_pages() == one.read_pages()


# Whom a pass is asked of


def jobs(shards: list[list[FakeShard]]) -> list[list[int]]:
    return [[len(replica.jobs) for replica in replicas] for replicas in shards]


def test_a_pass_goes_to_the_replica_with_the_fewest_outstanding() -> None:
    world = World()
    shards = fakes(world, ARRAY, 1, 3)
    with sharded(world, shards) as engine:
        assert engine.answer(QUERIES, max_micro_batch=1).micro_batch_sizes == (1,) * 5
        assert jobs(shards) == [[2, 2, 1]]


def test_as_many_chunks_are_under_way_as_there_are_replicas() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2, {(0, 0): [Answers(5.0)]})
    with sharded(world, shards) as engine:
        assert_right(engine, max_micro_batch=1)
        # All others were answered by the other replica meanwhile.
        assert jobs(shards)[0] == [1, 4]


def test_a_failure_is_retried_on_another_replica_first() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 3, {(0, 0): [Fails()], (0, 1): [Fails(at_once=True)]})
    with sharded(world, shards) as engine:
        assert_right(engine)
        assert jobs(shards) == [[1, 1, 1], [1, 0, 0]]
        counts = engine.statistics()
        assert (counts.retries, counts.failures, counts.parts, counts.passes) == (2, 2, 2, 1)
        assert (counts.gaps, counts.mismatches, counts.hedges) == (0, 0, 0)


def test_one_that_failed_is_asked_again_after_all_others() -> None:
    world = World()
    failing = [Fails(), Fails(), Fails()]
    shards = fakes(world, ARRAY, 1, 2, {(0, 0): failing, (0, 1): failing})
    with sharded(world, shards, timeout=10.0) as engine:
        began = world.time
        assert_right(engine)
        assert jobs(shards) in ([[4, 3]], [[3, 4]])
        counts = engine.statistics()
        assert (counts.failures, counts.retries) == (6, 6)
        # It was not asked again and again at once.
        assert 0.03 < world.time - began < 1
        assert counts.gaps == 1
        assert 0.03 < counts.gap_seconds == counts.longest_gap < 1


def test_without_a_timeout_each_replica_is_asked_once() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2, {(1, 0): [Fails()], (1, 1): [Fails(), Fails()]})
    with sharded(world, shards) as engine:
        message = r"^pages 1024 to 1999 had no answer from any replica: 1\.1 fell ill$"
        with pytest.raises(mg.ShardUnavailableError, match=message) as caught:
            engine.answer(QUERIES)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert jobs(shards) == [[1, 0], [1, 1]]
        assert_right(engine)


def test_there_is_no_answer_without_a_part_of_every_shard() -> None:
    world = World()
    shards = fakes(world, ARRAY, 4, 2, {(2, 0): [DROPS], (2, 1): [DROPS]})
    with sharded(world, shards, timeout=3.0, hedge=0.5) as engine:
        began = world.time
        message = r"^pages 1024 to 1535 had no answer in 3 seconds: none that was asked has told$"
        with pytest.raises(mg.ShardUnavailableError, match=message):
            engine.answer(QUERIES)
        assert world.time == began + 3.0
        assert_right(engine)


def test_a_shard_without_a_usable_replica_has_no_answer() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2)
    for replica in shards[1]:
        replica.usable = False
    with sharded(world, shards) as engine:
        with pytest.raises(mg.ShardUnavailableError, match=r"^pages 1024 .* no replica is usable$"):
            engine.answer(QUERIES)
        counts = engine.statistics()
        assert (counts.replicas, counts.usable, counts.gaps) == ((2, 2), (2, 0), 1)
    with sharded(world, fakes(world, ARRAY, 2), timeout=2.0) as engine:
        engine.shards[0][0].usable = False  # type: ignore[misc]
        world.at(world.time + 1.0, lambda: setattr(engine.shards[0][0], "usable", True))
        began = world.time
        assert_right(engine)
        assert 1.0 <= world.time - began < 1.3
        assert engine.statistics().longest_gap == pytest.approx(world.time - began)


def test_several_ranges_without_an_answer_are_counted() -> None:
    world = World()
    shards = fakes(world, ARRAY, 4, behaviours={(at, 0): [DROPS] for at in (0, 1, 3)})
    engine = sharded(world, shards, timeout=1.0)
    with pytest.raises(mg.ShardUnavailableError, match=r"^pages 0 to 511 and 2 more ranges "):
        engine.answer(QUERIES)


@pytest.mark.parametrize("about", ["number", "range", "epoch", "root", "shape"])
def test_a_part_of_something_else_is_never_added(about: str) -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2, {(0, 0): [Lies(about)]}, root=b"root")
    with sharded(world, shards, root=b"root") as engine:
        assert_right(engine)
        counts = engine.statistics()
        assert (counts.mismatches, counts.failures, counts.retries) == (1, 1, 1)
    world = World()
    shards = fakes(world, ARRAY, 2, 1, {(0, 0): [Lies(about)]}, root=b"root")
    with sharded(world, shards, root=b"root") as engine:
        with pytest.raises(mg.ShardUnavailableError) as caught:
            engine.answer(QUERIES)
        assert isinstance(caught.value.__cause__, mg.ShardMismatchError)


def test_a_shard_that_went_on_to_another_epoch_says_so() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    with sharded(world, shards) as engine:
        shards[1][0].table = TableShape(ARRAY.shape[0], ARRAY.shape[1], 1)
        with pytest.raises(mg.ShardUnavailableError, match=r": 1\.0 has epoch 1$"):
            engine.answer(QUERIES)
        assert engine.statistics().mismatches == 1


def test_a_part_that_comes_twice_or_late_is_in_no_answer() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 1, {(0, 0): [Answers(times=3)], (1, 0): [Answers(1.5)]})
    with sharded(world, shards, timeout=1.0) as engine:
        out = np.zeros_like(RIGHT)
        with pytest.raises(mg.ShardUnavailableError):
            engine.answer(QUERIES, out=out)
        assert not out.any()
        # The buffer of the call that failed is used again while its parts still come.
        engine.answer(QUERIES, out=out)
        world.drain()
        assert np.array_equal(out, RIGHT)
        assert engine.statistics().doubles == 3


# What else goes wrong


def test_without_memory_for_a_sum_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(coverage: Coverage, part: Bytes) -> None:
        raise MemoryError("too little")

    world = World()
    shards = fakes(world, ARRAY, 4, 2)
    with sharded(world, shards, timeout=60.0, hedge=1.0) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(Coverage, "_merge", fail)
            began = world.time
            with pytest.raises(MemoryError, match="too little"):
                engine.answer(QUERIES)
            assert world.time < began + 1
        assert_right(engine)


def test_an_error_names_no_key() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 1, {(0, 0): [Lies("shape")]})
    with sharded(world, shards) as engine:
        with pytest.raises(mg.ShardUnavailableError) as caught:
            engine.answer(QUERIES)
        (job,) = shards[1][0].jobs
        for text in (str(caught.value), repr(caught.value.__cause__), repr(job)):
            assert not any(str(key)[2:-1] in text for query in QUERIES for key in query.keys)
