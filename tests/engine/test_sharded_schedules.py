"""A sharded engine over replicas that are late, wrong, twice there or gone, in any order."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from fake_shards import (
    DROPS,
    Answers,
    Behaviour,
    Dies,
    Fails,
    FakeShard,
    Lies,
    World,
    fakes,
    sharded,
)
from morphogen.engine.sharded import ShardedEngine
from naive import naive_answers, random_pages, random_rows

ARRAY = random_pages(2000, 24)
QUERIES = mg.make_queries(random_rows(5, 2, 2000), 2000)[0]
RIGHT = naive_answers(ARRAY, QUERIES)


def assert_right(engine: ShardedEngine, **options: Any) -> None:
    assert np.array_equal(engine.answer(QUERIES, **options).pages, RIGHT)


def jobs(shards: list[list[FakeShard]]) -> list[list[int]]:
    return [[len(replica.jobs) for replica in replicas] for replicas in shards]


# Any schedule

SECONDS = st.sampled_from([0.0, 0.001, 0.02, 0.3, 2.0])
BEHAVIOURS: st.SearchStrategy[Behaviour] = st.one_of(
    st.builds(Answers, SECONDS, st.integers(0, 3), st.booleans()),
    st.builds(Fails, SECONDS, st.booleans()),
    st.builds(
        Lies, st.sampled_from(["number", "range", "epoch", "root", "shape", "type"]), SECONDS
    ),
    st.builds(Dies, st.booleans()),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_schedule_ends_in_the_right_answer_or_a_clear_error(data: st.DataObject) -> None:
    shards, replicas = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    planned = {
        (number, at): data.draw(st.lists(BEHAVIOURS, max_size=4))
        for number in range(shards)
        for at in range(replicas)
    }
    hedge = data.draw(st.sampled_from([None, 0.01, 0.1]))
    in_order = data.draw(st.booleans())
    troubles = [*planned.values()]
    world = World()
    fake = fakes(world, ARRAY, shards, replicas, planned, in_order=in_order)
    engine = sharded(world, fake, timeout=1.0, hedge=hedge)

    def recover(number: int, at: int) -> None:
        fake[number][at].usable = True

    def put_another(number: int, at: int) -> None:
        if not engine.closed:
            old = fake[number][at]
            troubles.append(data.draw(st.lists(BEHAVIOURS, max_size=2)))
            new = FakeShard(world, ARRAY, old.range, troubles[-1])
            engine.replace_replica(number, at, new)
            fake[number][at] = new

    places = st.tuples(st.integers(0, shards - 1), st.integers(0, replicas - 1))
    events = st.tuples(st.sampled_from([recover, put_another]), places, st.floats(0, 2))
    for event, place, seconds in data.draw(st.lists(events, max_size=4)):
        world.at(world.time + seconds, partial(event, *place))
    for _ in range(data.draw(st.integers(1, 3))):
        total = data.draw(st.integers(1, 5))
        out = np.full_like(RIGHT[:total], 0xA5)
        began = world.time
        try:
            engine.answer(QUERIES[:total], out=out, max_micro_batch=data.draw(st.integers(1, 5)))
        except mg.ShardUnavailableError:
            assert any(troubles)
        else:
            assert np.array_equal(out, RIGHT[:total])
        # Each chunk may take a second.
        assert world.time <= began + 1.0 * total + 1e-9
        before = out.copy()
        if data.draw(st.booleans()):
            world.drain()
        assert np.array_equal(out, before)
    world.drain()
    counts = engine.statistics()
    assert counts.hedges_won <= counts.hedges
    assert counts.mismatches <= counts.failures
    assert counts.parts <= counts.passes * shards
    engine.close()
    assert all(replica.closed for one in fake for replica in one)


# Hedges


def test_a_replica_that_takes_long_is_hedged() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2, {(0, 0): [DROPS]})
    with sharded(world, shards, hedge=0.5) as engine:
        began = world.time
        assert_right(engine)
        assert world.time == pytest.approx(began + 0.501)
        assert jobs(shards) == [[1, 1], [1, 0]]
        counts = engine.statistics()
        assert (counts.hedges, counts.hedges_won, counts.retries, counts.gaps) == (1, 1, 0, 0)
        # The next passes do not go there.
        began = world.time
        assert_right(engine)
        assert world.time == pytest.approx(began + 0.001)
        assert engine.statistics().hedges == 1


def test_a_hedge_that_loses_is_a_double() -> None:
    world = World()
    shards = fakes(world, ARRAY, 1, 2, {(0, 0): [Answers(0.6)], (0, 1): [Answers(0.3)]})
    with sharded(world, shards, hedge=0.5) as engine:
        assert_right(engine)
        world.drain()
        counts = engine.statistics()
        assert (counts.hedges, counts.hedges_won, counts.doubles) == (1, 0, 1)


def test_a_pass_that_waits_behind_others_is_not_hedged() -> None:
    world = World()
    slow = [Answers(0.4)] * 5
    shards = fakes(world, ARRAY, 1, 2, {(0, 0): slow, (0, 1): slow})
    with sharded(world, shards, hedge=0.5) as engine:
        assert_right(engine, max_micro_batch=1)
        # Each takes 0.4 s, and those that waited for another 0.8 s.
        assert engine.statistics().hedges == 0


def test_a_replica_that_was_slow_is_asked_again_once_it_has_told() -> None:
    world = World()
    shards = fakes(world, ARRAY, 1, 2, {(0, 0): [Answers(2.0)]})
    with sharded(world, shards, hedge=0.5) as engine:
        for _ in range(3):
            assert_right(engine)
        assert jobs(shards) == [[1, 3]]
        world.drain()
        assert_right(engine)
        assert jobs(shards) == [[2, 3]]


def test_a_replica_that_owes_a_part_to_nobody_is_asked_again_some_time() -> None:
    world = World()
    shards = fakes(world, ARRAY, 1, 2, {(0, 0): [DROPS]})
    with sharded(world, shards, hedge=0.5) as engine:
        assert_right(engine)
        world.time += 5
        assert_right(engine)
        assert jobs(shards) == [[1, 2]]
        world.time += 10
        assert_right(engine)
        assert jobs(shards) == [[2, 2]]


def test_the_first_of_all_replicas_that_take_long_counts() -> None:
    world = World()
    shards = fakes(world, ARRAY, 1, 3, {(0, 0): [DROPS], (0, 1): [Answers(9.0)]})
    with sharded(world, shards, hedge=0.5) as engine:
        began = world.time
        assert_right(engine)
        assert world.time == pytest.approx(began + 1.001)
        assert engine.statistics().hedges == 2


def test_a_lone_replica_that_takes_long_is_waited_for() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 1, {(0, 0): [Answers(2.0)]})
    with sharded(world, shards, hedge=0.5) as engine:
        assert_right(engine)
        assert engine.statistics().hedges == 0
