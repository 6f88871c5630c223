"""Another replica takes the place of one, also while a sharded engine goes on to an epoch."""

from __future__ import annotations

import dis
import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import numpy as np
import pytest

import morphogen as mg
from fake_shards import DROPS, FakeShard, World, fakes, sharded
from morphogen.engine.shards.replicas import Replicas
from morphogen.sharding import plan_shards
from naive import Bytes, naive_answers, random_pages, random_rows

ARRAY = random_pages(2000, 24)
HELD = plan_shards(2000, 2)
QUERIES = mg.make_queries(random_rows(3, 2, 2000), 2000)[0]
CHANGED = random_pages(1, 24, seed=1)
AFTER = ARRAY.copy()
AFTER[7] = CHANGED


class Acting(FakeShard):
    """While it opens an epoch, something happens, once."""

    act: Callable[[], None] | None = None

    def next_epoch(self, *arguments: Any) -> FakeShard:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().next_epoch(*arguments)


def acting(world: World) -> list[list[Acting]]:
    return [[Acting(world, ARRAY, held, name=f"{at}.0")] for at, held in enumerate(HELD)]


def answers(engine: mg.Engine, array: Bytes, epoch: int) -> bool:
    answer = engine.answer(QUERIES)
    return answer.epoch == epoch and np.array_equal(answer.pages, naive_answers(array, QUERIES))


def test_a_replica_is_replaced_and_its_passes_go_to_others_at_once() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2, {(0, 0): [DROPS]})
    new = fakes(world, ARRAY, 2)[0][0]
    with sharded(world, shards, timeout=60.0) as engine:
        world.at(world.time + 0.5, lambda: engine.replace_replica(0, 0, new))
        began = world.time
        assert answers(engine, ARRAY, 0)
        assert world.time == pytest.approx(began + 0.501)
        assert shards[0][0].closed
        assert engine.shards[0] == (new, shards[0][1])
        assert engine.statistics().retries == 1


def test_a_pass_that_waits_for_a_replica_finds_a_new_one_at_once() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    shards[1][0].usable = False
    new = fakes(world, ARRAY, 2)[1][0]
    with sharded(world, shards, timeout=60.0) as engine:
        world.at(world.time + 5.0, lambda: engine.replace_replica(1, 0, new))
        began = world.time
        assert answers(engine, ARRAY, 0)
        assert world.time == pytest.approx(began + 5.001)
        counts = engine.statistics()
        assert counts.gaps == 1
        assert counts.longest_gap == pytest.approx(5.001)


def test_a_pass_waits_for_a_replica_as_long_as_its_timeout_says() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2)
    shards[1][0].usable = False
    with sharded(world, shards, timeout=3600.0) as engine:
        world.at(world.time + 3000.0, lambda: setattr(shards[1][0], "usable", True))
        assert answers(engine, ARRAY, 0)
        assert engine.statistics().longest_gap == pytest.approx(3000.0, abs=1.0)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((2, 0), r"^shard must be in 0\.\.1, not 2$"),
        ((0, 1), r"^at must be in 0\.\.0, not 1$"),
        ((0, -1), r"^at must be in 0\.\.0, not -1$"),
        ((1, 0), r"must begin at page 1024, .*, not at page 0$"),
    ],
)
def test_a_replica_is_only_put_where_there_is_one(place: tuple[int, int], message: str) -> None:
    world = World()
    new = fakes(world, ARRAY, 2)[0][0]
    with sharded(world, fakes(world, ARRAY, 2)) as engine:
        with pytest.raises(ValueError, match=message):
            engine.replace_replica(*place, new)
        assert not new.closed
        assert answers(engine, ARRAY, 0)


def test_one_replica_is_not_put_in_a_second_place() -> None:
    world = World()
    shards = fakes(world, ARRAY, 2, 2)
    with sharded(world, shards) as engine:
        with pytest.raises(ValueError, match=r"^0\.1 must be one replica of one shard, not two$"):
            engine.replace_replica(0, 0, shards[0][1])
        assert answers(engine, ARRAY, 0)


# While the engine goes on to an epoch


def test_a_replica_that_comes_while_an_epoch_is_opened_goes_on_to_it() -> None:
    world = World()
    shards, new = acting(world), fakes(world, ARRAY, 2)[0][0]
    with sharded(world, [[*some] for some in shards]) as engine:
        shards[1][0].act = lambda: engine.replace_replica(0, 0, new)
        engine.replace_pages([7], CHANGED, 1)
        assert engine.shards == ((new.followers[-1],), (shards[1][0].followers[-1],))
        assert answers(engine, AFTER, 1)
        # What was opened on the one before is of no use, and no replica of this epoch is left.
        opened = [one for some in shards for shard in some for one in shard.followers]
        assert [one.closed for one in opened if one not in engine.shards[1]] == [True, True]
        assert all(one.closed for one in (new, shards[0][0], shards[1][0]))


def test_a_replica_that_comes_just_before_the_switch_goes_on_to_the_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    shards, new = fakes(world, ARRAY, 2), fakes(world, ARRAY, 2)[0][0]
    with sharded(world, shards) as engine:

        def replaced_first(*arguments: Any) -> Replicas:
            monkeypatch.undo()
            engine.replace_replica(0, 0, new)
            return Replicas(*arguments)

        monkeypatch.setattr("morphogen.engine.sharded.Replicas", replaced_first)
        engine.replace_pages([7], CHANGED, 1)
        assert engine.shards[0] == (new.followers[-1],)
        assert answers(engine, AFTER, 1)


def test_a_replica_of_the_epoch_before_is_refused_if_the_switch_came_first() -> None:
    world = World()

    class Late(FakeShard):
        """While its table is looked at, the engine goes on to another."""

        looked = False

        def __getattribute__(self, name: str) -> Any:
            if name == "table" and not object.__getattribute__(self, "looked"):
                self.looked = True
                engine.replace_pages([7], CHANGED, 1)
            return object.__getattribute__(self, name)

    new = Late(world, ARRAY, HELD[0])
    with sharded(world, fakes(world, ARRAY, 2)) as engine:
        before = engine.shards
        with pytest.raises(mg.ShardMismatchError, match=r"^epoch must be 1, not 0 as fake has$"):
            engine.replace_replica(0, 0, new)
        assert not new.closed
        assert engine.shards != before
        assert answers(engine, AFTER, 1)


# Instructions after which Python runs the handlers of signals.
HANDLED_AFTER = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD"}


def interrupted(call: Callable[[], object], names: set[str], at: int) -> bool:
    """Interrupt a call in functions of these names, where for the nth time it can be.

    Returns whether there was such a place.
    """
    left = at

    def in_function(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if event == "opcode":
            before, lasti[frame] = lasti.get(frame), frame.f_lasti
            if before is not None:
                left -= dis.opname[frame.f_code.co_code[before]] in HANDLED_AFTER
            if left == 0:
                raise KeyboardInterrupt
        return in_function

    def at_call(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_name not in names or left <= 0:
            return None
        frame.f_trace = in_function  # CPython 3.13 begins to tell of instructions if it is there
        frame.f_trace_opcodes = True
        return in_function

    lasti: dict[FrameType, int] = {}
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # else 3.12 tells of no frame's instructions
    sys.settrace(at_call)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_leaves_all_replicas_of_one_epoch() -> None:
    epochs = []
    for at in itertools.count(1):
        world = World()
        with sharded(world, fakes(world, ARRAY, 2, 2)) as engine:
            names = {"replace_pages", "_switch", "_open_after"}
            hit = interrupted(lambda: engine.replace_pages([7], CHANGED, 1), names, at)
            epoch = engine.table.epoch
            epochs.append(epoch)
            array = (ARRAY, AFTER)[epoch]
            assert answers(engine, array, epoch)
            assert not any(cast(FakeShard, one).closed for some in engine.shards for one in some)
            # It takes another replica still, and another epoch.
            engine.replace_replica(1, 1, fakes(world, array, 2, epoch=epoch)[1][0])
            engine.replace_pages([7], ARRAY[7:8], 2)
            assert answers(engine, ARRAY, 2)
        if not hit:
            break
    assert epochs == sorted(epochs)
    assert epochs.count(0) > 3
    assert epochs.count(1) > 3
