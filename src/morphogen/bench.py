"""The batch benchmark: the single-query loop, the batch and a pure read, side by side in one run.

Times of different runs cannot be compared on a shared machine, so that everything here is measured
in interleaved rounds, and every answer is checked: a fast wrong answer is worth nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import morphogen
from morphogen.bench_config import BenchmarkConfig
from morphogen.bench_csv import BenchmarkCsv
from morphogen.bench_expected import Expected, expect, nothing_expected
from morphogen.bench_phases import PhaseRow, measure_phases
from morphogen.bench_trial import COLUMNS, GPU_COLUMNS, BenchmarkEngine, BenchmarkRow, Trial
from morphogen.describe import describe_grid, describe_size
from morphogen.engine.cpu import CpuEngine
from morphogen.engine.status import driver_status
from morphogen.pages import PageMatrix
from morphogen.query import Query
from morphogen.workload import (
    Pages,
    RandomFetch,
    available_memory,
    generated_pages,
    random_fetch,
    random_pages,
    unbacked_pages,
)

if TYPE_CHECKING:
    from morphogen.engine.cuda import CudaEngine

Progress = Callable[[int, int], None]

# To add up the pages that a GPU made, the host must make them all again: seconds a GiB.
_MAX_NAIVE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """A whole run.

    Attributes
    ----------
    config : BenchmarkConfig
    device : str
        What the engine said that it used.
    instruction_set : str
        The CPU's, or what a GPU's kernels were compiled from: "compute_90".
    threads : int
        Of the host, that share the work: 1 on a GPU.
    rows : tuple of BenchmarkRow
        One for each batch size.
    failures : tuple of str
        What was wrong with which answer; empty if nothing was.
    device_name : str
        Of a GPU.
    multiprocessors : int
        Of a GPU.
    grid : str
        How a launch cuts the table into blocks, in words.
    phases : tuple of PhaseRow
        If the configuration asks for them: for each batch size one by one and, if that differs, in
        the engine's chunks.
    """

    config: BenchmarkConfig
    device: str
    instruction_set: str
    threads: int
    rows: tuple[BenchmarkRow, ...] = ()
    failures: tuple[str, ...] = ()
    device_name: str = ""
    multiprocessors: int = 0
    grid: str = ""
    phases: tuple[PhaseRow, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        return {**asdict(self), "ok": not self.failures}


Opener = Callable[[PageMatrix, BenchmarkConfig, Progress | None], BenchmarkEngine]


def _open_cpu(
    pages: PageMatrix, config: BenchmarkConfig, upload: Progress | None
) -> BenchmarkEngine:
    return CpuEngine(pages, threads=config.threads, instruction_set=config.instruction_set)


def _open_cuda(
    pages: PageMatrix, config: BenchmarkConfig, upload: Progress | None
) -> BenchmarkEngine:
    from morphogen.engine.cuda import CudaEngine

    generate = config.seed % 2**64 if config.generated else None
    return CudaEngine(pages, config.ordinal, progress=upload, generate=generate)


OPENERS: dict[str, Opener] = {"cpu": _open_cpu, "cuda": _open_cuda}


def run_benchmark(
    config: BenchmarkConfig,
    *,
    csv_path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    upload: Progress | None = None,
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
    upload : callable, optional
        Called while pages go to a GPU with the bytes sent and the bytes in all.
    opener : callable, optional
        Opens the engine to measure; by default the one of ``config.device``.

    Returns
    -------
    BenchmarkResult
        Wrong answers do not end the run: look at ``failures``.

    Raises
    ------
    DeviceError, OSError, ValueError
        If the device cannot be used or has no room, the CSV cannot be written, the table does not
        fit the memory, or the engine refuses an option.
    """
    if opener is None:
        opener = OPENERS[config.device.partition(":")[0]]
    available = available_memory()
    if config.memory > available:
        raise ValueError(
            f"{config.num_pages} pages of {config.page_size} bytes need "
            f"{describe_size(config.memory)} of memory, and only {describe_size(available)} are "
            "available"
        )
    if config.generated:
        array = unbacked_pages(config.num_pages, config.page_size)
    else:
        array = random_pages(config.num_pages, config.page_size, config.seed)
    fetch = random_fetch(
        config.num_pages, max(config.batch_sizes), config.keys_per_query, config.seed + 1
    )
    rows: list[BenchmarkRow] = []
    phases: list[PhaseRow] = []
    failures: list[str] = []
    with ExitStack() as stack:
        engine = stack.enter_context(closing(opener(PageMatrix(array), config, upload)))
        result = _describe(config, engine)
        writer = None
        if csv_path is not None:
            # newline="": the csv module ends the lines itself.
            file = stack.enter_context(Path(csv_path).open("w", encoding="utf-8", newline=""))
            columns = GPU_COLUMNS if config.on_gpu else COLUMNS
            writer = BenchmarkCsv(file, _header(result), columns)
        expected = _expect(config, array, fetch, engine)
        rounds = config.warmup + config.iterations
        total = rounds * sum(config.batch_sizes)
        done = 0
        for q in config.batch_sizes:
            queries = fetch.queries[0][:q]
            trial = Trial(engine, queries, expected, synchronous=config.on_gpu)
            for number in range(rounds):
                trial.round(number, timed=number >= config.warmup)
                done += q
                if progress is not None:
                    progress(done, total)
            faults = trial.faults()
            if config.phases:
                measured, more = _phases(config, engine, queries, trial)
                phases += measured
                faults += more
            failures += [f"q = {q}: {fault}" for fault in faults]
            rows.append(trial.row(correct=not faults))
            if writer is not None:
                writer.write(rows[-1])
    return replace(result, rows=tuple(rows), failures=tuple(failures), phases=tuple(phases))


def _describe(config: BenchmarkConfig, engine: BenchmarkEngine) -> BenchmarkResult:
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
    )


def _header(result: BenchmarkResult) -> dict[str, object]:
    config = result.config
    gpu = {
        "device_name": result.device_name,
        "multiprocessors": result.multiprocessors,
        "grid": result.grid,
        "pages_made_on": "device" if config.generated else "host",
        "sync": "the strictly synchronous loop, one call for each query",
    }
    return {
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
        **(gpu if config.on_gpu else {}),
    }


def _expect(
    config: BenchmarkConfig, array: Pages, fetch: RandomFetch, engine: BenchmarkEngine
) -> Expected:
    # The last query of every batch, so that larger batches are checked at several places.
    positions = sorted(size - 1 for size in config.batch_sizes)
    num_pages, page_size = array.shape
    if not config.generated:
        return expect(lambda start, stop: array[start:stop], num_pages, page_size, fetch, positions)
    expected = nothing_expected(config.keys_per_query, page_size)
    if array.nbytes <= _MAX_NAIVE_BYTES:
        expected = expect(
            lambda start, stop: generated_pages(config.seed, np.arange(start, stop), page_size),
            num_pages,
            page_size,
            fetch,
            positions,
        )
    # However large the table: every page that a query fetches can be made again alone. In reverse,
    # so that what is always wrong in one place of a batch does not cancel out.
    return expected.with_other_party(
        engine.answer(fetch.queries[1][::-1]).pages[::-1],
        generated_pages(config.seed, fetch.indices, page_size),
    )


def _phases(
    config: BenchmarkConfig, engine: BenchmarkEngine, queries: list[Query], trial: Trial
) -> tuple[list[PhaseRow], list[str]]:
    rows, faults = [], []
    for width in (1, None) if len(queries) > 1 else (1,):
        row, more = measure_phases(
            cast("CudaEngine", engine),
            queries,
            trial.answer.pages,
            warmup=config.warmup,
            iterations=config.iterations,
            max_micro_batch=width,
        )
        rows.append(row)
        faults += more
    return rows, faults
