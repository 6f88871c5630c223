"""The batch benchmark: the single-query loop, the batch and a pure read, side by side in one run.

Times of different runs cannot be compared on a shared machine, so that everything here is measured
in interleaved rounds, and every answer is checked: a fast wrong answer is worth nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from morphogen.bench.concurrency import ConcurrencyRow, measure_concurrency
from morphogen.bench.config import BenchmarkConfig
from morphogen.bench.describe import describe_grid, describe_kernels, describe_size
from morphogen.bench.expected import Expected, expect, nothing_expected
from morphogen.bench.pages import open_pages, page_reader, with_progress
from morphogen.bench.phases import PhaseRow, measure_phases
from morphogen.bench.result import BenchmarkCsv, BenchmarkResult as BenchmarkResult
from morphogen.bench.strategies import StrategyMatrix, StrategyRow as StrategyRow
from morphogen.bench.trial import PLAIN, BenchmarkRow, RoundTimes, Trial
from morphogen.bench.variants import VariantMatrix
from morphogen.bench.workload import RandomFetch, available_memory, generated_pages, random_fetch
from morphogen.engine import device_candidates, open_engine
from morphogen.engine.base import Engine
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.cuda.status import driver_status
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.local import LocalShard
from morphogen.pages import PageMatrix
from morphogen.progress import Progress, StagedProgress, stage
from morphogen.query import Query

if TYPE_CHECKING:
    from morphogen.engine.cuda import CudaEngine

# Pages that a GPU made must be made again by the host to be added up, which takes seconds a GiB.
_MAX_NAIVE_BYTES = 1 << 30
# The naive answer reads half of the pages for each key: seconds for so many keys x bytes of pages.
_MAX_NAIVE_WORK = 8 << 30


Opener = Callable[[PageMatrix, BenchmarkConfig, Progress], Engine]


def _open_cpu(pages: PageMatrix, config: BenchmarkConfig, upload: Progress) -> Engine:
    return CpuEngine(pages, threads=config.threads, instruction_set=config.instruction_set)


def _open_cuda(pages: PageMatrix, config: BenchmarkConfig, upload: Progress) -> Engine:
    from morphogen.engine.cuda import CudaEngine

    device_candidates(config.device)  # raises if there is no driver, and names what is missing
    generate = config.seed % 2**64 if config.generated else None
    return CudaEngine(
        pages, config.ordinal, progress=upload, generate=generate, layout=config.layout
    )


def _open_shared(pages: PageMatrix, config: BenchmarkConfig, upload: Progress) -> Engine:
    return open_engine(
        pages,
        config.device,
        threads=config.threads,
        instruction_set=config.instruction_set,
        progress=upload,
    )


OPENERS: dict[str, Opener] = {"cpu": _open_cpu, "cuda": _open_cuda, "shared": _open_shared}


def run_benchmark(
    config: BenchmarkConfig,
    *,
    csv_path: str | os.PathLike[str] | None = None,
    progress: StagedProgress | None = None,
    opener: Opener | None = None,
) -> BenchmarkResult:
    """Measure and check every batch size.

    Parameters
    ----------
    config : BenchmarkConfig
    csv_path : path-like, optional
        The CSV file to write the rows to, each as soon as it is measured, so that an interrupted
        run leaves those it had.
    progress : callable, optional
        Called between steps with the work done, the work in all, and the stage: "making pages",
        "uploading" them to a GPU, "checking" answers by adding pages up, "measuring", "concurrent
        callers".
    opener : callable, optional
        Opens the engine to measure; by default the one of ``config.device``.

    Returns
    -------
    BenchmarkResult
        Wrong answers do not end the run: look at ``failures``.

    Raises
    ------
    DeviceError, OSError, ValueError
        If the device cannot be used or has no room, a file cannot be read or written, the pages
        do not fit the memory, or the engine refuses an option.
    """
    if opener is None:
        opener = OPENERS["shared" if config.shared else config.device.partition(":")[0]]
    told = progress or _tell_nobody
    available = available_memory()
    if config.memory > available:
        raise ValueError(
            f"{config.num_pages} pages of {config.page_size} bytes need "
            f"{describe_size(config.memory)} of memory, and only {describe_size(available)} are "
            "available"
        )
    matrix = open_pages(config, stage(told, "making pages"))
    fetch = random_fetch(config.num_pages, config.queries, config.keys_per_query, config.seed + 1)
    with ExitStack() as stack:
        engine = stack.enter_context(closing(opener(matrix, config, stage(told, "uploading"))))
        strategies = (
            StrategyMatrix(config.strategies, engine, config.keys_per_query)
            if config.strategies
            else None
        )
        variants = (
            VariantMatrix(config.variants, engine, config.keys_per_query)
            if config.variants
            else None
        )
        run = _Run(config, engine, fetch, strategies, variants)
        result = _describe(config, engine)
        if csv_path is not None:
            run.csv = stack.enter_context(closing(BenchmarkCsv(csv_path, result)))
        run.expected = _expect(config, matrix, fetch, engine, stage(told, "checking"))
        run.measure_batches(stage(told, "measuring"))
        run.measure_callers(stage(told, "concurrent callers"))
    return replace(
        result,
        rows=tuple(run.rows),
        failures=tuple(run.failures),
        rounds=tuple(run.rounds),
        phases=tuple(run.phases),
        strategies=tuple(strategies.rows) if strategies else (),
        strategies_lacking=strategies.lacking if strategies else (),
        recommendation=strategies.recommendation() if strategies else None,
        concurrency=tuple(run.concurrency),
        variants=tuple(variants.rows) if variants else (),
        best_variants=tuple(variants.best.values()) if variants else (),
    )


def _tell_nobody(done: int, total: int, stage: str) -> None:
    pass


class _Run:
    """A run, with its measurements so far."""

    def __init__(
        self,
        config: BenchmarkConfig,
        engine: Engine,
        fetch: RandomFetch,
        strategies: StrategyMatrix | None,
        variants: VariantMatrix | None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.fetch = fetch
        self.strategies = strategies
        self.variants = variants
        self.expected = nothing_expected(config.keys_per_query, config.page_size)
        self.csv: BenchmarkCsv | None = None
        self.rows: list[BenchmarkRow] = []
        self.rounds: list[RoundTimes] = []
        self.phases: list[PhaseRow] = []
        self.concurrency: list[ConcurrencyRow] = []
        self.failures: list[str] = []

    def measure_batches(self, progress: Progress) -> None:
        """Run the rounds of every batch size."""
        config = self.config
        rounds = config.warmup + config.iterations
        total = rounds * sum(config.batch_sizes)
        done = 0
        for q in config.batch_sizes:
            queries = self.fetch.queries[0][:q]
            more = self.strategies.more(q) if self.strategies else {}
            more |= self.variants.more(q) if self.variants else {}
            trial = Trial(self.engine, queries, self.expected, more)
            for number in range(rounds):
                trial.round(number, timed=number >= config.warmup)
                done += q
                progress(done, total)
            self._add(trial, queries)

    def _add(self, trial: Trial, queries: list[Query]) -> None:
        faults, wrong = trial.faults(), trial.faults_of(*PLAIN)
        if self.strategies:
            self.strategies.add(trial)
        if self.config.phases:
            measured, more = _phases(self.config, self.engine, queries, trial)
            self.phases += measured
            faults += more
            wrong += more
        self.failures += [f"q = {trial.q}: {fault}" for fault in faults]
        ms = {name: tuple(values) for name, values in trial.times.items()}
        self.rounds.append(RoundTimes(trial.q, ms))
        self.rows.append(trial.row(correct=not wrong))
        rows = [self.rows[-1]]
        if self.variants:
            self.variants.add(trial)
            rows += [row for row in self.variants.rows if row.q == trial.q]
        if self.csv is not None:
            for row in rows:
                self.csv.write(row)

    def measure_callers(self, progress: Progress) -> None:
        """Let callers ask at the same time, as many as the configuration says."""
        for callers in self.config.concurrency:
            rows, faults = measure_concurrency(
                self.engine,
                self.fetch.queries[0][:callers],
                self.expected,
                warmup=self.config.warmup,
                iterations=self.config.iterations,
                progress=progress,
            )
            self.concurrency += rows
            self.failures += [f"callers = {callers}: {fault}" for fault in faults]


def _describe(config: BenchmarkConfig, engine: Engine) -> BenchmarkResult:
    if isinstance(engine, ShardedEngine):
        return _describe_shared(config, engine)
    if not config.on_gpu:
        cpu = cast(CpuEngine, engine)
        return BenchmarkResult(config, cpu.device, cpu.instruction_set, cpu.threads)
    gpu = cast("CudaEngine", engine)
    status = driver_status().devices[config.ordinal]
    return BenchmarkResult(
        config,
        gpu.device,
        gpu.ptx,
        threads=1,
        device_name=status.name,
        multiprocessors=status.multiprocessors,
        grid=describe_grid(gpu.grid),
        kernels=describe_kernels(gpu.tuned),
    )


def _describe_shared(config: BenchmarkConfig, engine: ShardedEngine) -> BenchmarkResult:
    parts = [cast(LocalShard, shard).engine for (shard,) in engine.shards]
    cpus = [part for part in parts if isinstance(part, CpuEngine)]
    code = {*(cpu.instruction_set for cpu in cpus)}
    code |= {cast("CudaEngine", part).ptx for part in parts if part not in cpus}
    threads = len(parts) - len(cpus) + sum(cpu.threads for cpu in cpus)
    return BenchmarkResult(config, engine.device, ", ".join(sorted(code)), threads)


def _expect(
    config: BenchmarkConfig,
    matrix: PageMatrix,
    fetch: RandomFetch,
    engine: Engine,
    progress: Progress,
) -> Expected:
    positions: Sequence[int] = range(config.queries)
    if config.queries * config.keys_per_query * matrix.nbytes > _MAX_NAIVE_WORK:
        # Check the last query of every batch: several places of a large one.
        positions = sorted({size - 1 for size in (*config.batch_sizes, *config.concurrency)})
    expected = nothing_expected(config.keys_per_query, config.page_size)
    if not config.generated or matrix.nbytes <= _MAX_NAIVE_BYTES:
        read = with_progress(page_reader(config, matrix), matrix.num_pages, progress)
        expected = expect(read, matrix.num_pages, matrix.page_size, fetch, positions)
    if not config.generated:
        return expected
    # Among any number of pages, those that a query fetches can be made again alone. Party 1 answers
    # in reverse, so that a fault in one place of a batch does not cancel out.
    return expected.with_other_party(
        engine.answer(fetch.queries[1][::-1]).pages[::-1],
        generated_pages(config.seed, fetch.indices, config.page_size),
    )


def _phases(
    config: BenchmarkConfig, engine: Engine, queries: list[Query], trial: Trial
) -> tuple[list[PhaseRow], list[str]]:
    rows, faults = [], []
    for width in (1, None) if len(queries) > 1 else (1,):
        row, more = measure_phases(
            cast("CudaEngine", engine),
            queries,
            trial.answer("batch").pages,
            warmup=config.warmup,
            iterations=config.iterations,
            max_micro_batch=width,
        )
        rows.append(row)
        faults += more
    return rows, faults
