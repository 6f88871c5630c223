"""Replicas of shards that do what a test says, in a time of their own: nobody sleeps.

A `World` is the clock of an engine. When the engine waits, the world's time goes on to the next
event, such as a part that comes, on the engine's own thread.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import morphogen as mg
from morphogen.engine.locks import Condition
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.scatter import Clock
from morphogen.engine.shards.transport import Part, Pass, ShardTransport, queries_of
from morphogen.errors import ShardMismatchError
from morphogen.pages import TableShape
from morphogen.sharding import ShardRange, plan_shards
from naive import Bytes, unpack

Tell = Callable[[Part | Exception], None]


class HangError(AssertionError):
    """An engine waits, and nothing will ever happen."""


class World(Clock):
    """Virtual time."""

    def __init__(self) -> None:
        self.time = 100.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.waits = 0

    def now(self) -> float:
        return self.time

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def wait(self, condition: Condition, holds: Callable[[], bool], timeout: float | None) -> None:
        self.waits += 1
        assert self.waits < 100_000, "the engine waits again and again"
        end = float("inf") if timeout is None else self.time + timeout
        while not holds():
            if not self._events or self._events[0][0] > end:
                if end == float("inf"):
                    raise HangError
                self.time = end
                return
            self.step()

    def step(self) -> None:
        time, _, event = heapq.heappop(self._events)
        self.time = max(self.time, time)
        event()

    def drain(self) -> None:
        """Let all happen that is still to come."""
        while self._events:
            self.step()


# What a replica does with a pass


@dataclass(frozen=True)
class Answers:
    """Answers right, after some seconds of work: once, or more often, or never."""

    seconds: float = 0.001
    times: int = 1
    at_once: bool = False  # before `submit` returns


@dataclass(frozen=True)
class Fails:
    """Tells an error, or raises it."""

    seconds: float = 0.001
    at_once: bool = False


@dataclass(frozen=True)
class Lies:
    """Answers for something else: "number", "range", "epoch", "root", "shape", "type"."""

    about: str
    seconds: float = 0.001


@dataclass(frozen=True)
class Dies:
    """Is usable no more, and tells so or not."""

    tells: bool = True


Behaviour = Answers | Fails | Lies | Dies
DROPS = Answers(times=0)


class FakeShard:
    """A replica. It does one thing after the other, as a real one, or all at once."""

    def __init__(
        self,
        world: World,
        array: Bytes,
        held: ShardRange,
        behaviours: Iterable[Behaviour] = (),
        *,
        name: str = "fake",
        epoch: int = 0,
        root: bytes | None = None,
        in_order: bool = True,
    ) -> None:
        self.world, self.array, self.range, self.name = world, array, held, name
        self.behaviours: Iterator[Behaviour] = iter(behaviours)  # then it is well
        self.table = TableShape(array.shape[0], array.shape[1], epoch)
        self.root = root
        self.in_order = in_order
        self.busy_until = 0.0
        self.usable = True
        self.closed = False
        self.jobs: list[Pass] = []
        self.refuses_next: Exception | None = None
        self.followers: list[FakeShard] = []

    def submit(self, job: Pass, tell: Tell) -> None:
        assert not self.closed
        self.jobs.append(job)
        does = next(self.behaviours, Answers())
        if not self.usable:
            raise RuntimeError(f"{self.name} is dead")
        match does:
            case Answers(seconds, times, at_once):
                part = self.answer(job)
                for turn in range(times):
                    if at_once:
                        tell(part)
                    else:
                        self.later(seconds * (turn + 1), tell, part)
            case Fails(seconds, at_once):
                if at_once:
                    raise RuntimeError(f"{self.name} is ill")
                self.later(seconds, tell, RuntimeError(f"{self.name} fell ill"))
            case Lies(about, seconds):
                self.later(seconds, tell, self.lie(self.answer(job), about))
            case Dies(tells):
                self.usable = False
                if tells:
                    self.later(0.001, tell, RuntimeError(f"{self.name} died"))

    def later(self, seconds: float, tell: Tell, outcome: Any) -> None:
        begin = max(self.world.time, self.busy_until) if self.in_order else self.world.time
        self.busy_until = begin + seconds
        self.world.at(begin + seconds, lambda: tell(outcome))

    def answer(self, job: Pass) -> Part | Exception:
        if (job.epoch, job.root) != (self.table.epoch, self.root):
            return ShardMismatchError(f"{self.name} has epoch {self.table.epoch}")
        mine = self.array[self.range.first : self.range.stop]
        if job.queries:
            sums = [
                np.bitwise_xor.reduce(
                    mine[selected(key, len(self.array))[self.range.first : self.range.stop]],
                    axis=0,
                    initial=0,
                )
                for query in queries_of(job)
                for key in query.keys
            ]
        else:
            padded = mine.tobytes().ljust(-(-mine.size // 8) * 8, b"\0")
            sums = [np.bitwise_xor.reduce(np.frombuffer(padded, np.uint8).reshape(-1, 8), axis=0)]
        pages = np.array(sums, np.uint8).reshape(job.part_shape(self.table.page_size))
        return Part(job.number, self.range, job.epoch, job.root, pages)

    def lie(self, part: Part | Exception, about: str) -> Any:
        if isinstance(part, Exception):
            return part
        part = replace(part, pages=~part.pages)  # what it is about has other pages
        match about:
            case "number":
                return replace(part, number=part.number + 1)
            case "range":
                return replace(part, range=ShardRange(part.range.first + 512, part.range.count))
            case "epoch":
                return replace(part, epoch=part.epoch + 1)
            case "root":
                return replace(part, root=b"another")
            case "shape":
                return replace(part, pages=part.pages[..., :1])
            case "type":
                return part.pages
        raise AssertionError(about)

    def next_epoch(
        self, indices: Any, pages: Bytes, epoch: int, root: bytes | None = None
    ) -> FakeShard:
        if self.refuses_next is not None:
            raise self.refuses_next
        after = self.array.copy()
        after[self.range.first + indices] = pages
        following = FakeShard(self.world, after, self.range, name=self.name, epoch=epoch, root=root)
        self.followers.append(following)
        return following

    def close(self) -> None:
        self.closed = True


@cache
def selected(key: bytes, num_pages: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return unpack(mg.dpf.eval_full(key, num_pages), num_pages)


def fakes(
    world: World,
    array: Bytes,
    shards: int,
    replicas: int = 1,
    behaviours: Mapping[tuple[int, int], Iterable[Behaviour]] | None = None,
    **options: Any,
) -> list[list[FakeShard]]:
    """Replicas of shards of a table: for each, what it does with its first passes."""
    planned = {} if behaviours is None else behaviours
    return [
        [
            FakeShard(
                world, array, held, planned.get((number, at), ()), name=f"{number}.{at}", **options
            )
            for at in range(replicas)
        ]
        for number, held in enumerate(plan_shards(len(array), shards))
    ]


def sharded(
    world: World, shards: list[list[FakeShard]], *, root: bytes | None = None, **options: Any
) -> ShardedEngine:
    """An engine over fakes."""
    shape = shards[0][0].table
    listed: list[list[ShardTransport]] = [list(replicas) for replicas in shards]
    return ShardedEngine(listed, shape, root=root, clock=world, **options)
