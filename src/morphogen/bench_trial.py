"""The rounds of one batch size: what is timed, in what order, and what is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from time import perf_counter_ns
from typing import Protocol

import numpy as np

from morphogen.bench_expected import Expected
from morphogen.query import Answer, Query
from morphogen.workload import checksum


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """What was measured for one batch size. The fields are the columns of the CSV, in their order.

    Attributes
    ----------
    q : int
        Queries in the batch.
    single_ms_per_batch, batch_ms_per_batch, read_ms : float
        Medians: the single-query loop, the batch, and a pure read of all pages.
    batch_vs_single_speedup, batch_vs_read : float
        Ratios of these medians.
    single_qps, batch_qps : float
        Queries a second.
    checksum_single, checksum_batch : str
        BLAKE2b of 16 bytes over the answer's pages in request order.
    single_spread, batch_spread, read_spread : float
        Distance of the quartiles, relative to the median.
    correct : bool
        Whether every check of this row passed.
    micro_batch_sizes : tuple of int
        Queries in each chunk of the batch.
    sync_ms_per_batch, batch_vs_sync_speedup, sync_spread : float or None
        The strictly synchronous loop: one call for each query, each answered before the next is
        made. None, and not in the CSV, where the single-query loop is the same.
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
    sync_ms_per_batch: float | None = None
    batch_vs_sync_speedup: float | None = None
    sync_spread: float | None = None


GPU_COLUMNS = tuple(field.name for field in fields(BenchmarkRow))
COLUMNS = GPU_COLUMNS[: GPU_COLUMNS.index("sync_ms_per_batch")]


class BenchmarkEngine(Protocol):
    """What an engine must have to be measured."""

    @property
    def device(self) -> str: ...
    @property
    def max_micro_batch(self) -> int: ...
    def answer(self, queries: list[Query], *, max_micro_batch: int | None = None) -> Answer: ...
    def read_pages(self) -> int: ...
    def close(self) -> None: ...


class Trial:
    """The rounds of one batch size.

    Parameters
    ----------
    engine : BenchmarkEngine
    queries : list of Query
    expected : Expected
    synchronous : bool
        Whether to run the strictly synchronous loop too.
    """

    def __init__(
        self,
        engine: BenchmarkEngine,
        queries: list[Query],
        expected: Expected,
        *,
        synchronous: bool,
    ) -> None:
        self._queries = queries
        self._expected = expected
        self._widest = engine.max_micro_batch
        self._contenders: dict[str, Callable[[], list[Answer] | int]] = {
            "single": lambda: [engine.answer(queries, max_micro_batch=1)],
            "batch": lambda: [engine.answer(queries)],
            "read": engine.read_pages,
        }
        if synchronous:
            self._contenders["sync"] = lambda: [engine.answer([query]) for query in queries]
        self._times: dict[str, list[int]] = {name: [] for name in self._contenders}
        self._answers: dict[str, Answer] = {}
        self._reads: list[int] = []
        self._changed: dict[str, int] = dict.fromkeys(self._contenders, 0)

    def round(self, number: int, *, timed: bool) -> None:
        """Run every contender once."""
        # The order alternates: what ran before shapes caches and clocks of what runs next.
        contenders = list(self._contenders.items())
        for name, run in contenders if number % 2 == 0 else reversed(contenders):
            start = perf_counter_ns()
            result = run()
            elapsed = perf_counter_ns() - start
            if timed:
                self._times[name].append(elapsed)
            if isinstance(result, int):
                self._reads.append(result)
                self._changed[name] += result != self._reads[0]
            else:
                answer = _join(result)
                first = self._answers.setdefault(name, answer)
                self._changed[name] += not np.array_equal(answer.pages, first.pages)

    @property
    def answer(self) -> Answer:
        """The first answer to the batch."""
        return self._answers["batch"]

    def faults(self) -> list[str]:
        """What was wrong in any round, in words; nothing if all was right."""
        q = len(self._queries)
        single, batch = self._answers["single"], self._answers["batch"]
        faults = [
            f"the answer of the {name} changed in {changed} rounds"
            for name, changed in self._changed.items()
            if changed
        ]
        wanted = (q, *self._expected.page_shape)
        for name, answer in self._answers.items():
            if answer.pages.shape == wanted:
                faults += self._expected.faults(name, answer.pages)
            else:
                faults.append(f"the {name} answered shape {answer.pages.shape}, not {wanted}")
        if self._expected.read is not None and self._reads[0] != self._expected.read:
            faults.append(f"the read gave {self._reads[0]:#x}, not {self._expected.read:#x}")
        sizes = batch.micro_batch_sizes
        if sum(sizes) != q or max(sizes, default=0) > self._widest:
            faults.append(f"the batch ran in chunks of {sizes}, not {q} queries")
        for name, loop in (("single-query", "single"), ("synchronous", "sync")):
            if loop in self._answers and self._answers[loop].micro_batch_sizes != (1,) * q:
                ran = self._answers[loop].micro_batch_sizes
                faults.append(f"the {name} loop ran in chunks of {ran}")
        for name, answer in self._answers.items():
            if name != "single" and answer.pages.shape == single.pages.shape:
                differing = np.nonzero((single.pages != answer.pages).any(axis=(1, 2)))[0].tolist()
                if differing:
                    faults.append(
                        f"the {name} differs from the single-query loop in queries {differing}"
                    )
        return faults

    def row(self, *, correct: bool) -> BenchmarkRow:
        """What was measured."""
        q = len(self._queries)
        medians, spreads = {}, {}
        for name, times in self._times.items():
            low, median, high = np.percentile(np.array(times) / 1e6, (25, 50, 75)).tolist()
            medians[name], spreads[name] = median, (high - low) / median
        sync = medians.get("sync")
        return BenchmarkRow(
            q=q,
            single_ms_per_batch=medians["single"],
            batch_ms_per_batch=medians["batch"],
            batch_vs_single_speedup=medians["single"] / medians["batch"],
            single_qps=1e3 * q / medians["single"],
            batch_qps=1e3 * q / medians["batch"],
            checksum_single=checksum(self._answers["single"].pages),
            checksum_batch=checksum(self._answers["batch"].pages),
            read_ms=medians["read"],
            batch_vs_read=medians["batch"] / medians["read"],
            single_spread=spreads["single"],
            batch_spread=spreads["batch"],
            read_spread=spreads["read"],
            correct=correct,
            micro_batch_sizes=self._answers["batch"].micro_batch_sizes,
            sync_ms_per_batch=sync,
            batch_vs_sync_speedup=None if sync is None else sync / medians["batch"],
            sync_spread=spreads.get("sync"),
        )


def _join(answers: list[Answer]) -> Answer:
    """The answers to the parts of a batch as one."""
    if len(answers) == 1:
        return answers[0]
    return Answer(
        np.concatenate([answer.pages for answer in answers]),
        answers[0].epoch,
        answers[0].num_pages,
        sum((answer.micro_batch_sizes for answer in answers), ()),
    )
