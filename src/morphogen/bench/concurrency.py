"""Concurrent callers: direct calls that take turns, and callers that share chunks by a batcher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from morphogen.batcher import MicroBatcher
from morphogen.bench.config import REQUESTS
from morphogen.bench.expected import Expected
from morphogen.bench.statistics import Spread, p99
from morphogen.bench.workload import Pages
from morphogen.engine.base import Engine
from morphogen.errors import DeviceError
from morphogen.progress import Progress
from morphogen.query import Answer, Query

LONE, DIRECT, BATCHER = "lone", "direct", "batcher"


@dataclass(frozen=True, slots=True)
class ConcurrencyRow:
    """Callers who each ask for one query after the other, without a pause.

    Attributes
    ----------
    callers : int
        At the same time.
    way : str
        "direct": all callers call the engine, each with its own chunk. "batcher": all submit to a
        `MicroBatcher`. "lone": beside several callers, one alone, by direct calls.
    requests : int
        In all timed rounds.
    p50_ms, p90_ms, max_ms : float
        Of a caller's latency, from its call to its answer.
    p99_ms : float or None
        None with fewer than 100 requests.
    qps : Spread
        Queries a second in a round: the median over the rounds, and quartiles.
    vs_direct : Spread
        Queries a second over those of direct calls in the same round.
    mean_chunk : float
        Mean queries in a chunk.
    correct : bool
        Whether every answer was right, and came to the caller who had asked.
    """

    callers: int
    way: str
    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    max_ms: float
    qps: Spread
    vs_direct: Spread
    mean_chunk: float
    correct: bool


class _Way:
    """One way to call, with its times and answers."""

    def __init__(self, name: str, queries: list[Query], call: Callable[[Query], Answer]) -> None:
        self.name = name
        self.queries = queries
        self.call = call
        self.latencies: list[float] = []
        self.rates: list[float] = []
        self.first: list[Pages] = []
        self.wrong: set[int] = set()
        self.chunks: list[int] = []

    def round(self, pool: ThreadPoolExecutor, *, timed: bool) -> None:
        """Let all callers make their requests."""
        barrier = threading.Barrier(len(self.queries))

        def caller(query: Query) -> list[tuple[int, int, Answer]]:
            barrier.wait()
            made = []
            for _ in range(REQUESTS):
                start = perf_counter_ns()
                answer = self.call(query)
                made.append((start, perf_counter_ns(), answer))
            return made

        callers: list[Future[list[tuple[int, int, Answer]]]] = []
        try:
            for query in self.queries:
                callers.append(pool.submit(caller, query))
        except RuntimeError as error:
            barrier.abort()  # no started thread shall wait for one that cannot be started
            raise DeviceError(f"cannot start {len(self.queries)} threads: {error}") from None
        made = [future.result() for future in callers]
        if not self.first:
            self.first = [requests[0][2].pages for requests in made]
        for at, requests in enumerate(made):
            for _, _, answer in requests:
                if not np.array_equal(answer.pages, self.first[at]):
                    self.wrong.add(at)
                # Each of the n queries of a chunk is told n.
                self.chunks.append(answer.micro_batch_sizes[0] if answer.micro_batch_sizes else 0)
        if timed:
            times = [(start, end) for requests in made for start, end, _ in requests]
            self.latencies += [(end - start) / 1e6 for start, end in times]
            wall = max(end for _, end in times) - min(start for start, _ in times)
            self.rates.append(len(times) / wall * 1e9)

    @property
    def mean_chunk(self) -> float:
        """Mean queries in a chunk; 0 if a chunk claims to have none."""
        passes = sum(1 / size for size in self.chunks) if all(self.chunks) else 0.0
        return len(self.chunks) / passes if passes else 0.0

    def faults(self, right: Pages, expected: Expected, widest: int) -> list[str]:
        """The faults in any round, in words."""
        name = f"answers by way of {self.name}"
        faults = []
        if self.wrong:
            faults.append(f"the {name} changed for the callers {sorted(self.wrong)}")
        wanted = (1, *expected.page_shape)
        shapes = {pages.shape for pages in self.first} - {wanted}
        if shapes:
            return [*faults, f"the {name} have the shapes {sorted(shapes)}, not {wanted}"]
        pages = np.concatenate(self.first)
        faults += expected.faults(name, pages)
        # The loop itself may have too few answers.
        differing = [
            at
            for at, page in enumerate(pages)
            if at >= len(right) or not np.array_equal(page, right[at])
        ]
        if differing:
            faults.append(
                f"the {name} differ from the single-query loop for the callers {differing}"
            )
        # A chunk of n is counted n times, and no chunk is too wide.
        odd = [
            size
            for size in set(self.chunks)
            if not 1 <= size <= widest or self.chunks.count(size) % size
        ]
        if odd:
            faults.append(f"the {name} came from chunks of {sorted(odd)}, of at most {widest}")
        return faults


def measure_concurrency(
    engine: Engine,
    queries: list[Query],
    expected: Expected,
    *,
    warmup: int,
    iterations: int,
    progress: Progress,
) -> tuple[list[ConcurrencyRow], list[str]]:
    """Let as many callers as there are queries ask at the same time, each for its own.

    Parameters
    ----------
    engine : Engine
    queries : list of Query
        One for each caller, the first queries of ``expected``.
    expected : Expected
    warmup, iterations : int
        Rounds that do not count, and rounds that do.
    progress : callable
        Called with the rounds done and the rounds in all.

    Returns
    -------
    tuple of (list of ConcurrencyRow, list of str)
        The second has the faults of the answers.
    """
    right = engine.answer(queries, max_micro_batch=1).pages
    callers = len(queries)
    total = warmup + iterations
    with (
        MicroBatcher(engine) as batcher,
        ThreadPoolExecutor(callers, thread_name_prefix="morphogen-bench") as pool,
    ):
        direct = _Way(DIRECT, queries, lambda query: engine.answer([query]))
        batched = _Way(BATCHER, queries, lambda query: batcher.submit(query).result())
        lone = _Way(LONE, queries[:1], lambda query: engine.answer([query]))
        ways = [lone, direct, batched] if callers > 1 else [direct, batched]
        for number in range(total):
            for way in ways if number % 2 == 0 else reversed(ways):
                way.round(pool, timed=number >= warmup)
            progress(number + 1, total)
        widest = {LONE: 1, DIRECT: 1, BATCHER: batcher.width_for(len(queries[0]))}
    rows, faults = [], []
    for way in ways:
        found = way.faults(right, expected, widest[way.name])
        faults += found
        rows.append(_row(callers, way, direct.rates, correct=not found))
    return rows, faults


def _row(callers: int, way: _Way, direct: Sequence[float], *, correct: bool) -> ConcurrencyRow:
    p50, p90 = np.percentile(way.latencies, (50, 90)).tolist()
    return ConcurrencyRow(
        callers=callers,
        way=way.name,
        requests=len(way.latencies),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99(way.latencies),
        max_ms=max(way.latencies),
        qps=Spread.of(way.rates),
        vs_direct=Spread.of_ratio(way.rates, direct),
        mean_chunk=way.mean_chunk,
        correct=correct,
    )
