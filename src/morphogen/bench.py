"""The batch benchmark: the single-query loop, the batch and a pure read, side by side in one run.

Times of different runs cannot be compared on a shared machine, so that everything here is measured
in interleaved rounds, and every answer is checked: a fast wrong answer is worth nothing.
"""

from __future__ import annotations

import csv
import operator
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol, TextIO

import numpy as np

import morphogen
from morphogen import dpf
from morphogen.describe import describe_chunks, describe_size
from morphogen.engine.cpu import CpuEngine
from morphogen.errors import DeviceUnavailableError
from morphogen.pages import PageMatrix
from morphogen.planner import MAX_KEYS_PER_QUERY
from morphogen.query import Answer, Query
from morphogen.workload import (
    Pages,
    available_memory,
    checksum,
    naive_answer,
    random_pages,
    random_queries,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """What to measure.

    Attributes
    ----------
    num_pages, page_size : int
        The table. Its pages are random.
    batch_sizes : tuple of int
        Queries a batch, one row of the result for each, all different.
    keys_per_query : int
        1 to 3.
    iterations : int
        Rounds that are timed.
    warmup : int
        Rounds before them that are not.
    seed : int
        Of pages, indices and keys: the same seed gives the same answers on every device.
    device : str
        "cpu".
    threads : int or None
        None for one for each core this process may use.
    instruction_set : str or None
        None for the widest.
    """

    num_pages: int
    page_size: int
    batch_sizes: tuple[int, ...]
    keys_per_query: int
    iterations: int
    warmup: int
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    instruction_set: str | None = None

    def __post_init__(self) -> None:
        _check_range("num_pages", self.num_pages, 1, dpf.MAX_PAGES)
        _check_range("page_size", self.page_size, 1)
        _check_range("keys_per_query", self.keys_per_query, 1, MAX_KEYS_PER_QUERY)
        _check_range("iterations", self.iterations, 1)
        _check_range("warmup", self.warmup, 0)
        _check_range("seed", self.seed, 0)
        if not self.batch_sizes:
            raise ValueError("batch_sizes must have at least one entry, not 0")
        for size in self.batch_sizes:
            _check_range("a batch size", size, 1)
        if len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError(f"batch_sizes must all be different, not {self.batch_sizes}")

    @property
    def memory(self) -> int:
        """Bytes that a run needs: the pages, and four answers of the largest batch."""
        answers = 4 * max(self.batch_sizes) * self.keys_per_query
        return (self.num_pages + answers) * self.page_size


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


COLUMNS = tuple(field.name for field in fields(BenchmarkRow))


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """A whole run.

    Attributes
    ----------
    config : BenchmarkConfig
    device, instruction_set, threads
        What the engine said that it used.
    rows : tuple of BenchmarkRow
        One for each batch size.
    failures : tuple of str
        What was wrong with which answer; empty if nothing was.
    """

    config: BenchmarkConfig
    device: str
    instruction_set: str
    threads: int
    rows: tuple[BenchmarkRow, ...]
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        return {**asdict(self), "ok": not self.failures}


class BenchmarkEngine(Protocol):
    """What an engine must have to be measured."""

    @property
    def device(self) -> str: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def answer(self, queries: list[Query], *, max_micro_batch: int | None = None) -> Answer: ...
    def read_pages(self) -> int: ...
    def close(self) -> None: ...


Opener = Callable[[PageMatrix, BenchmarkConfig], BenchmarkEngine]


def _open_cpu(pages: PageMatrix, config: BenchmarkConfig) -> BenchmarkEngine:
    return CpuEngine(pages, threads=config.threads, instruction_set=config.instruction_set)


OPENERS: dict[str, Opener] = {"cpu": _open_cpu}


def run_benchmark(
    config: BenchmarkConfig,
    *,
    csv_path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    opener: Opener | None = None,
) -> BenchmarkResult:
    """Measure and check every batch size.

    Parameters
    ----------
    config : BenchmarkConfig
    csv_path : path-like, optional
        Where to write the rows as CSV, each as soon as it is measured, so that an interrupted run
        leaves what it had.
    progress : callable, optional
        Called between measurements with the work done and the work in all.
    opener : callable, optional
        Opens the engine to measure; by default the one of ``config.device``.

    Returns
    -------
    BenchmarkResult
        Wrong answers do not end the run: look at ``failures``.

    Raises
    ------
    DeviceUnavailableError, OSError, ValueError
        If there is no such device, the CSV cannot be written, the table does not fit the memory, or
        the engine refuses an option.
    """
    if opener is None:
        if config.device not in OPENERS:
            raise DeviceUnavailableError(
                f"device must be one of {', '.join(OPENERS)}, not {config.device!r}"
            )
        opener = OPENERS[config.device]
    available = available_memory()
    if config.memory > available:
        raise ValueError(
            f"{config.num_pages} pages of {config.page_size} bytes need "
            f"{describe_size(config.memory)} of memory, and only {describe_size(available)} are "
            "available"
        )
    array = random_pages(config.num_pages, config.page_size, config.seed)
    queries = random_queries(
        config.num_pages, max(config.batch_sizes), config.keys_per_query, config.seed + 1
    )
    rows: list[BenchmarkRow] = []
    failures: list[str] = []
    with ExitStack() as stack:
        engine = stack.enter_context(closing(opener(PageMatrix(array), config)))
        result = BenchmarkResult(
            config, engine.device, engine.instruction_set, engine.threads, (), ()
        )
        writer = None
        if csv_path is not None:
            # newline="": the csv module ends the lines itself.
            file = stack.enter_context(Path(csv_path).open("w", encoding="utf-8", newline=""))
            writer = _CsvWriter(file, result)
        # The last query of every batch, so that larger batches are checked at several places.
        positions = sorted(size - 1 for size in config.batch_sizes)
        expected = {at: naive_answer(array, queries[at]) for at in positions}
        rounds = config.warmup + config.iterations
        total = rounds * sum(config.batch_sizes)
        done = 0
        for q in config.batch_sizes:
            trial = _Trial(engine, queries[:q])
            for number in range(rounds):
                trial.round(number, timed=number >= config.warmup)
                done += q
                if progress is not None:
                    progress(done, total)
            faults = trial.faults(expected)
            failures += [f"q = {q}: {fault}" for fault in faults]
            rows.append(trial.row(correct=not faults))
            if writer is not None:
                writer.write(rows[-1])
    return replace(result, rows=tuple(rows), failures=tuple(failures))


class _Trial:
    """The rounds of one batch size."""

    def __init__(self, engine: BenchmarkEngine, queries: list[Query]) -> None:
        self._queries = queries
        self._contenders: dict[str, Callable[[], Answer | int]] = {
            "single": lambda: engine.answer(queries, max_micro_batch=1),
            "batch": lambda: engine.answer(queries),
            "read": engine.read_pages,
        }
        self._times: dict[str, list[int]] = {name: [] for name in self._contenders}
        self._answers: dict[str, Answer] = {}
        self._changed: dict[str, int] = dict.fromkeys(self._contenders, 0)

    def round(self, number: int, *, timed: bool) -> None:
        # The order alternates: what ran before shapes caches and clocks of what runs next.
        contenders = list(self._contenders.items())
        for name, run in contenders if number % 2 == 0 else reversed(contenders):
            start = perf_counter_ns()
            answer = run()
            elapsed = perf_counter_ns() - start
            if timed:
                self._times[name].append(elapsed)
            if isinstance(answer, Answer):
                first = self._answers.setdefault(name, answer)
                self._changed[name] += not np.array_equal(answer.pages, first.pages)

    def faults(self, expected: dict[int, Pages]) -> list[str]:
        q = len(self._queries)
        single, batch = self._answers["single"], self._answers["batch"]
        faults = [
            f"the answer of the {name} changed in {changed} rounds"
            for name, changed in self._changed.items()
            if changed
        ]
        wanted = (q, *next(iter(expected.values())).shape)
        for name, answer in self._answers.items():
            if answer.pages.shape != wanted:
                faults.append(f"the {name} answered shape {answer.pages.shape}, not {wanted}")
                continue
            faults += [
                f"the {name} differs from the naive XOR of the pages in query {at}"
                for at, pages in expected.items()
                if at < q and not np.array_equal(answer.pages[at], pages)
            ]
        if sum(batch.micro_batch_sizes) != q:
            faults.append(f"the batch ran in chunks of {batch.micro_batch_sizes}, not {q} queries")
        if single.micro_batch_sizes != (1,) * q:
            faults.append(f"the single-query loop ran in chunks of {single.micro_batch_sizes}")
        if single.pages.shape == batch.pages.shape:
            differing = np.nonzero((single.pages != batch.pages).any(axis=(1, 2)))[0].tolist()
            if differing:
                faults.append(
                    f"the batch differs from the single-query loop in queries {differing}"
                )
        return faults

    def row(self, *, correct: bool) -> BenchmarkRow:
        q = len(self._queries)
        medians, spreads = {}, {}
        for name, times in self._times.items():
            low, median, high = np.percentile(np.array(times) / 1e6, (25, 50, 75)).tolist()
            medians[name], spreads[name] = median, (high - low) / median
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
        )


class _CsvWriter:
    """Header lines, the line of columns, then one row after the other."""

    def __init__(self, file: TextIO, result: BenchmarkResult) -> None:
        config = result.config
        self._file = file
        self._writer = csv.writer(file, lineterminator="\n")
        header = {
            "morphogen": morphogen.__version__,
            "device": result.device,
            "instruction_set": result.instruction_set,
            "threads": result.threads,
            "pages": config.num_pages,
            "page_size": config.page_size,
            "keys_per_query": config.keys_per_query,
            "iterations": config.iterations,
            "warmup": config.warmup,
            "seed": config.seed,
            "times": "medians; spread is the distance of the quartiles over the median",
            "checksum": "BLAKE2b of 16 bytes over the pages of the answer in request order",
        }
        for key, value in header.items():
            file.write(f"# {key}: {value}\n")
        self._writer.writerow(COLUMNS)
        file.flush()

    def write(self, row: BenchmarkRow) -> None:
        self._writer.writerow([_csv_value(getattr(row, column)) for column in COLUMNS])
        self._file.flush()


def _csv_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return describe_chunks(value) if isinstance(value, tuple) else str(value).lower()


def _check_range(name: str, value: int, low: int, high: int | None = None) -> None:
    number = operator.index(value)
    if number < low or (high is not None and number > high):
        wanted = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {wanted}, not {number}")
