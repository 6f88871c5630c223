"""The trial of one batch size: rounds in which contenders take turns, timed and checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from time import perf_counter_ns

import numpy as np

from morphogen.bench.expected import Expected
from morphogen.bench.statistics import Spread
from morphogen.bench.workload import checksum
from morphogen.engine.base import Engine
from morphogen.engine.strategy import Strategy
from morphogen.query import Answer, Query

# Gives the answers to a batch, by one call or several, or the result of a pure read.
Contender = Callable[[], list[Answer] | int]


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """The measurements of one batch size. The fields are the columns of the CSV, in their order.

    Attributes
    ----------
    q : int
        Queries in the batch.
    single_ms_per_batch, batch_ms_per_batch, read_ms : float
        Medians: the single-query loop, the batch, and a pure read of all pages.
    batch_vs_single_speedup : float
        Ratio of these medians.
    single_qps, batch_qps : float
        Queries a second, by the medians.
    checksum_single, checksum_batch : str
        BLAKE2b of 16 bytes over the answer's pages in request order.
    batch_vs_read : float
        The batch's time over that of a pure read in the same round: the median over the rounds.
    single_spread, batch_spread, read_spread : float
        Distance of the quartiles, relative to the median.
    correct : bool
        Whether every check of the loops, the batch, the read and the phases passed. Strategies and
        callers have rows of their own.
    micro_batch_sizes : tuple of int
        Queries in each chunk of the batch.
    sync_ms_per_batch, batch_vs_sync_speedup, sync_spread : float
        The strictly synchronous loop: one call for each query, each answered before the next is
        made.
    single_vs_read, sync_vs_read : float
        As ``batch_vs_read``.
    single_low_ms, single_high_ms, batch_low_ms, batch_high_ms : float
        Quartiles of the times.
    sync_low_ms, sync_high_ms, read_low_ms, read_high_ms : float
        The same.
    batch_vs_single_low, batch_vs_single_high, batch_vs_read_low, batch_vs_read_high : float
        Quartiles of the ratios, each taken within a round.
    variant : str
        The variant of a GPU's kernels that ran the batch; empty if none was asked for.
    """

    q: int
    single_ms_per_batch: float
    batch_ms_per_batch: float
    batch_vs_single_speedup: float
    single_qps: float
    batch_qps: float
    checksum_single: str
    checksum_batch: str
    read_ms: float
    batch_vs_read: float
    single_spread: float
    batch_spread: float
    read_spread: float
    correct: bool
    micro_batch_sizes: tuple[int, ...]
    sync_ms_per_batch: float
    batch_vs_sync_speedup: float
    sync_spread: float
    single_vs_read: float
    sync_vs_read: float
    single_low_ms: float
    single_high_ms: float
    batch_low_ms: float
    batch_high_ms: float
    sync_low_ms: float
    sync_high_ms: float
    read_low_ms: float
    read_high_ms: float
    batch_vs_single_low: float
    batch_vs_single_high: float
    batch_vs_read_low: float
    batch_vs_read_high: float
    variant: str = ""


COLUMNS = tuple(field.name for field in fields(BenchmarkRow))
# The contenders of every trial, of which its row tells.
PLAIN = ("single", "batch", "sync", "read")
_LOOPS = {"single": "single-query", "sync": "synchronous"}


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """The times of one batch size, round by round.

    Attributes
    ----------
    q : int
        Queries in the batch.
    ms : mapping of str to tuple of float
        Milliseconds in each timed round, by contender; all took part in the same rounds.
    """

    q: int
    ms: Mapping[str, tuple[float, ...]]


class Trial:
    """The rounds of one batch size. Contenders take turns: a disturbance of the machine hits all.

    Parameters
    ----------
    engine : Engine
    queries : list of Query
    expected : Expected
    strategies : mapping of str to Strategy, optional
        More ways to run the batch, by names other than those of the loops, the batch and the read.

    Attributes
    ----------
    q : int
        Queries in the batch.
    times : dict of str to list of float
        Milliseconds in each timed round, by contender.
    """

    def __init__(
        self,
        engine: Engine,
        queries: list[Query],
        expected: Expected,
        strategies: Mapping[str, Strategy] | None = None,
    ) -> None:
        self.q: int = len(queries)
        self._expected = expected
        self._widest = engine.check_width(None, expected.page_shape[0])
        self._strategies = dict(strategies or {})
        self._contenders: dict[str, Contender] = {
            "single": lambda: [engine.answer(queries, max_micro_batch=1)],
            "batch": lambda: [engine.answer(queries)],
            "sync": lambda: [engine.answer([query]) for query in queries],
            "read": engine.read_pages,
        }
        for name, strategy in self._strategies.items():
            self._contenders[name] = partial(_answer_by, engine, queries, strategy)
        self.times: dict[str, list[float]] = {name: [] for name in self._contenders}
        self._answers: dict[str, Answer] = {}  # the first of each contender
        self._reads: list[int] = []
        # Rounds in which the answer was not that of the first.
        self._changed = dict.fromkeys(self._contenders, 0)

    def round(self, number: int, *, timed: bool) -> None:
        """Run every contender once.

        Parameters
        ----------
        number : int
            Of the round; it decides the order.
        timed : bool
            Whether the round counts, and is no warm-up.
        """
        # A contender leaves its traces in caches and clocks, so that each round has another order.
        names = list(self._contenders)
        random.Random(number).shuffle(names)
        for name in names:
            run = self._contenders[name]
            start = perf_counter_ns()
            result = run()
            elapsed = perf_counter_ns() - start
            if timed:
                self.times[name].append(elapsed / 1e6)
            if isinstance(result, int):
                self._reads.append(result)
                self._changed[name] += result != self._reads[0]
            else:
                answer = _joined(result)
                first = self._answers.setdefault(name, answer)
                self._changed[name] += not np.array_equal(answer.pages, first.pages)

    def answer(self, name: str) -> Answer:
        """The first answer of a contender."""
        return self._answers[name]

    def faults(self) -> list[str]:
        """The faults of all contenders in any round, in words."""
        return self.faults_of(*self._contenders)

    def faults_of(self, *names: str) -> list[str]:
        """The faults of some contenders."""
        return [fault for name in names for fault in self._faults_of(name)]

    def _faults_of(self, name: str) -> list[str]:
        words = f"strategy {name}" if name in self._strategies else name
        faults = []
        if changed := self._changed[name]:
            faults.append(f"the answer of the {words} changed in {changed} rounds")
        if name == "read":
            read = self._reads[0]
            if self._expected.read is not None and read != self._expected.read:
                faults.append(f"the read gave {read:#x}, not {self._expected.read:#x}")
            return faults
        answer, single = self._answers[name], self._answers["single"]
        wanted = (self.q, *self._expected.page_shape)
        if answer.pages.shape == wanted:
            faults += self._expected.faults(words, answer.pages)
        else:
            faults.append(f"the {words} answered shape {answer.pages.shape}, not {wanted}")
        faults += self._faults_of_chunks(name, words, answer.micro_batch_sizes)
        if name != "single" and answer.pages.shape == single.pages.shape:
            differing = np.nonzero((single.pages != answer.pages).any(axis=(1, 2)))[0].tolist()
            if differing:
                faults.append(
                    f"the {words} differs from the single-query loop in queries {differing}"
                )
        return faults

    def _faults_of_chunks(self, name: str, words: str, sizes: tuple[int, ...]) -> list[str]:
        if name in _LOOPS:
            ones = (1,) * self.q
            return [] if sizes == ones else [f"the {_LOOPS[name]} loop ran in chunks of {sizes}"]
        width = self._strategies[name].width if name in self._strategies else self._widest
        if sum(sizes) == self.q and max(sizes, default=0) <= width:
            return []
        return [f"the {words} ran in chunks of {sizes}, not {self.q} queries"]

    def row(self, *, correct: bool, contender: str = "batch", variant: str = "") -> BenchmarkRow:
        """The row of the loops, the batch and the read, or of another contender as the batch."""
        q, times = self.q, {**self.times, "batch": self.times[contender]}
        answer = self._answers[contender]
        of = {name: Spread.of(times[name]) for name in PLAIN}
        vs_read = {
            name: Spread.of_ratio(times[name], times["read"])
            for name in ("single", "batch", "sync")
        }
        vs_single = Spread.of_ratio(times["single"], times["batch"])
        return BenchmarkRow(
            q=q,
            single_ms_per_batch=of["single"].median,
            batch_ms_per_batch=of["batch"].median,
            batch_vs_single_speedup=of["single"].median / of["batch"].median,
            single_qps=1e3 * q / of["single"].median,
            batch_qps=1e3 * q / of["batch"].median,
            checksum_single=checksum(self._answers["single"].pages),
            checksum_batch=checksum(answer.pages),
            read_ms=of["read"].median,
            batch_vs_read=vs_read["batch"].median,
            single_spread=of["single"].relative,
            batch_spread=of["batch"].relative,
            read_spread=of["read"].relative,
            correct=correct,
            micro_batch_sizes=answer.micro_batch_sizes,
            sync_ms_per_batch=of["sync"].median,
            batch_vs_sync_speedup=of["sync"].median / of["batch"].median,
            sync_spread=of["sync"].relative,
            single_vs_read=vs_read["single"].median,
            sync_vs_read=vs_read["sync"].median,
            single_low_ms=of["single"].low,
            single_high_ms=of["single"].high,
            batch_low_ms=of["batch"].low,
            batch_high_ms=of["batch"].high,
            sync_low_ms=of["sync"].low,
            sync_high_ms=of["sync"].high,
            read_low_ms=of["read"].low,
            read_high_ms=of["read"].high,
            batch_vs_single_low=vs_single.low,
            batch_vs_single_high=vs_single.high,
            batch_vs_read_low=vs_read["batch"].low,
            batch_vs_read_high=vs_read["batch"].high,
            variant=variant,
        )


def _answer_by(engine: Engine, queries: list[Query], strategy: Strategy) -> list[Answer] | int:
    return [
        engine.answer(
            queries,
            max_micro_batch=strategy.width,
            lanes=strategy.lanes,
            graph=strategy.graph,
            variant=strategy.variant,
        )
    ]


def _joined(answers: list[Answer]) -> Answer:
    """The answers to the parts of a batch, at least one, as one."""
    if len(answers) == 1:
        return answers[0]
    return Answer(
        np.concatenate([answer.pages for answer in answers]),
        answers[0].epoch,
        answers[0].num_pages,
        sum((answer.micro_batch_sizes for answer in answers), ()),
        answers[0].party,
    )
