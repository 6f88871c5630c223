"""Interleaved rounds: contenders take turns, so that what disturbs the machine hits all alike.

morphogen.bench does the same for `morphogen bench`, which keeps and compares answers, too. It can't
be used here: the suite measures the packages of other commits, which may not have it, and two
commits must be measured in the same way.
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

# A round times as many calls as fill this, so that the clock's own time does not show.
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
    """What each clock says in each round. A clock does its work and returns the seconds."""
    times = {name: np.empty(rounds) for name in clocks}
    names = list(clocks)
    for number in range(rounds):
        # The order alternates: what ran before shapes caches and clocks of what runs next.
        for name in names if number % 2 == 0 else reversed(names):
            times[name][number] = clocks[name]()
    return times


def interleave(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Seconds a call of each contender in each round, after a warm-up."""
    return take_turns({name: clock(run) for name, run in contenders.items()}, rounds)


def median_ratio(run: Callable[[], object], base: Callable[[], object], rounds: int) -> float:
    """How many times as long as the base a call takes: the median over the rounds."""
    return _clocks_ratio(clock(run), clock(base), rounds)


def cost(run: Callable[[], object]) -> float:
    """What a call takes that reads no table: as many times a fixed loop in the same rounds."""
    return clock_cost(clock(run))


def clock_cost(run: Callable[[], float]) -> float:
    """The same, of what has a clock of its own."""
    return _clocks_ratio(run, clock(_fixed_loop), rounds=101)


def _fixed_loop() -> None:
    """Work of the processor, and none of this package's: a few microseconds of hashing."""
    hashlib.sha256(_BLOCK)


def _clocks_ratio(run: Callable[[], float], base: Callable[[], float], rounds: int) -> float:
    times = take_turns({"run": run, "base": base}, rounds)
    return Spread.of(times["run"] / times["base"]).median


def clock(run: Callable[[], object]) -> Callable[[], float]:
    """Times calls, as many as fill a round. Gives the seconds of one."""
    timer = timeit.Timer(run, timer=time.perf_counter)
    calls = 1
    while timer.timeit(calls) < _ROUND_SECONDS:
        calls *= 2
    return lambda: timer.timeit(calls) / calls
