"""Interleaved rounds: contenders take turns, so that a disturbance of the machine hits all alike.

morphogen.bench does the same for `morphogen bench`, which also keeps and compares answers. The
suite cannot use it: it measures the packages of other commits, which may not have it, and must
measure two commits in the same way.
"""

from __future__ import annotations

import hashlib
import time
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]

# A round makes as many calls as fill this time, so that the clock's own time does not show.
_ROUND_SECONDS = 1e-3
_BLOCK = bytes(4096)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Seconds) -> Spread:
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        return cls(low, median, high)


def take_turns(clocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Seconds]:
    """Return the times of each clock by round. A clock does its work and returns the seconds."""
    times = {name: np.empty(rounds) for name in clocks}
    names = list(clocks)
    for number in range(rounds):
        # The order alternates, because a contender shapes caches and clock rates for the next one.
        for name in names if number % 2 == 0 else reversed(names):
            times[name][number] = clocks[name]()
    return times


def interleave(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Return the seconds a call of each contender in each round, after a warm-up."""
    return take_turns({name: clock(run) for name, run in contenders.items()}, rounds)


def median_ratio(run: Callable[[], object], base: Callable[[], object], rounds: int) -> float:
    """Return how many times as long as the base a call takes: the median over the rounds."""
    return _clocks_ratio(clock(run), clock(base), rounds)


def cost(run: Callable[[], object]) -> float:
    """Return a call's time in times of a fixed loop in the same rounds. It reads no table."""
    return clock_cost(clock(run))


def clock_cost(run: Callable[[], float]) -> float:
    """Return the same for work that has a clock of its own."""
    return _clocks_ratio(run, clock(_fixed_loop), rounds=101)


def _fixed_loop() -> None:
    """Make the processor work without this package: a few microseconds of hashing."""
    hashlib.sha256(_BLOCK)


def _clocks_ratio(run: Callable[[], float], base: Callable[[], float], rounds: int) -> float:
    times = take_turns({"run": run, "base": base}, rounds)
    return Spread.of(times["run"] / times["base"]).median


def clock(
    run: Callable[[], object], timer: Callable[[], float] | None = None
) -> Callable[[], float]:
    """Make a clock that times as many calls as fill a round, and returns the seconds of one."""
    timed = timeit.Timer(run, timer=timer or time.perf_counter)
    calls = 1
    # Take the least of three: another program that runs meanwhile must not make a round too short.
    while min(timed.repeat(3, calls)) < _ROUND_SECONDS:
        calls *= 2
    return lambda: timed.timeit(calls) / calls
