"""Interleaved rounds: contenders take turns, so that what disturbs the machine hits all alike.

morphogen.bench.rounds does the same for `morphogen bench`, which keeps and compares answers, too.
It can't be used here: the suite measures the packages of other commits, which may not have it, and
two commits must be measured in the same way.
"""

from __future__ import annotations

import os
import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]

# A round times as many calls as fill this, so that the clock's own time does not show.
_ROUND_SECONDS = 1e-3
# What must only run, and not be compared, needs no more than one: tools/gate.py sets it.
_MOST_ROUNDS = os.environ.get("MORPHOGEN_BENCH_MOST_ROUNDS")


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
    rounds = min(rounds, int(_MOST_ROUNDS or rounds))
    times = {name: np.empty(rounds) for name in clocks}
    names = list(clocks)
    for number in range(rounds):
        # The order alternates: what ran before shapes caches and clocks of what runs next.
        for name in names if number % 2 == 0 else reversed(names):
            times[name][number] = clocks[name]()
    return times


def interleave(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Seconds a call of each contender in each round, after a warm-up."""
    return take_turns({name: _clock(run) for name, run in contenders.items()}, rounds)


def median_ratio(run: Callable[[], object], base: Callable[[], object], rounds: int) -> float:
    """How many times as long as the base a call takes: the median over the rounds."""
    times = interleave({"run": run, "base": base}, rounds)
    return Spread.of(times["run"] / times["base"]).median


def _clock(run: Callable[[], object]) -> Callable[[], float]:
    timer = timeit.Timer(run)
    calls = 1
    while timer.timeit(calls) < _ROUND_SECONDS:
        calls *= 2
    return lambda: timer.timeit(calls) / calls
