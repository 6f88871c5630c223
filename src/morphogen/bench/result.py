"""The result of a benchmark, and the CSV file of its rows."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import morphogen
from morphogen.bench.concurrency import ConcurrencyRow
from morphogen.bench.config import BenchmarkConfig
from morphogen.bench.describe import describe_chunks
from morphogen.bench.phases import PhaseRow
from morphogen.bench.recommend import Recommendation
from morphogen.bench.strategies import StrategyRow
from morphogen.bench.trial import COLUMNS, BenchmarkRow, RoundTimes
from morphogen.bench.variants import BestVariant
from morphogen.checks import names_file


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """A whole run.

    Attributes
    ----------
    config : BenchmarkConfig
    device : str
        The engine's name of its device.
    instruction_set : str
        The CPU's, or the PTX of a GPU's kernels: "compute_80".
    threads : int
        Of the host, that share the work: 1 on a GPU.
    rows : tuple of BenchmarkRow
        One for each batch size.
    failures : tuple of str
        The faults of answers; empty if all were right.
    device_name : str
        Of a GPU.
    multiprocessors : int
        Of a GPU.
    grid : str
        The blocks of a launch, in words.
    kernels : str
        Of a GPU: the variants that it takes by itself, in words.
    rounds : tuple of RoundTimes
        For each batch size the time of every round.
    phases : tuple of PhaseRow
        If the configuration asks for them: for each batch size one by one and, if that differs, in
        the engine's chunks.
    strategies : tuple of StrategyRow
        If the configuration asks for them: a row for each batch size and strategy.
    strategies_lacking : tuple of str
        Strategies that "all" means but the engine has not.
    recommendation : Recommendation or None
        The best strategies, if they were measured.
    concurrency : tuple of ConcurrencyRow
        If the configuration asks for it: rows for each number of callers.
    variants : tuple of BenchmarkRow
        If the configuration asks for them: a row for each batch size, variant and width of chunks.
    best_variants : tuple of BestVariant
        The best of them, for each width.
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
    kernels: str = ""
    rounds: tuple[RoundTimes, ...] = ()
    phases: tuple[PhaseRow, ...] = ()
    strategies: tuple[StrategyRow, ...] = ()
    strategies_lacking: tuple[str, ...] = ()
    recommendation: Recommendation | None = None
    concurrency: tuple[ConcurrencyRow, ...] = ()
    variants: tuple[BenchmarkRow, ...] = ()
    best_variants: tuple[BestVariant, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        data = asdict(self)
        if self.config.matrix_file is not None:
            data["config"]["matrix_file"] = str(self.config.matrix_file)
        return {**data, "ok": not self.failures}


class BenchmarkCsv:
    """A CSV file: lines about the run, the names of the columns, then the rows.

    Parameters
    ----------
    path : path-like
        A file that is there is written over.
    result : BenchmarkResult
        The run, whose rows need not be there yet.

    Raises
    ------
    OSError
        If the file cannot be written. It names the file.
    """

    def __init__(self, path: str | os.PathLike[str], result: BenchmarkResult) -> None:
        self._path = path
        # newline="": the csv module ends the lines itself. The name of a file of pages may be any
        # bytes.
        self._file = Path(path).open(  # noqa: SIM115
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        )
        self._writer = csv.writer(self._file, lineterminator="\n")
        try:
            with names_file(path):
                self._file.write(_heading(result))
            self._write(COLUMNS)
        except OSError:
            with suppress(OSError):
                self.close()
            raise

    def write(self, row: BenchmarkRow) -> None:
        """Write a row at once, so that an interrupted run leaves it."""
        self._write(_cells(row))

    def _write(self, cells: Sequence[str]) -> None:
        with names_file(self._path):
            self._writer.writerow(cells)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with names_file(self._path):  # what could not be written is tried again
            self._file.close()


def csv_text(result: BenchmarkResult) -> str:
    """The content of the CSV file of a whole run.

    Parameters
    ----------
    result : BenchmarkResult

    Returns
    -------
    str
    """
    text = io.StringIO(newline="")
    text.write(_heading(result))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in result.rows:
        writer.writerow(_cells(row))
        writer.writerows(_cells(more) for more in result.variants if more.q == row.q)
    return text.getvalue()


def _heading(result: BenchmarkResult) -> str:
    return "".join(f"# {key}: {value}\n" for key, value in _header(result).items())


def _cells(row: BenchmarkRow) -> list[str]:
    return [_text(getattr(row, column)) for column in COLUMNS]


def _header(result: BenchmarkResult) -> dict[str, object]:
    config = result.config
    gpu = {
        "device_name": result.device_name,
        "multiprocessors": result.multiprocessors,
        "grid": result.grid,
        "kernels": result.kernels,
        "pages_made_on": "device" if config.generated else "host",
        "layout": config.layout,
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
        "table": "random" if config.matrix_file is None else config.matrix_file.name,
        "times": "medians; spread is the distance of the quartiles over the median",
        "ratios": "to a pure read: medians of the ratios within each round",
        "checksum": "BLAKE2b of 16 bytes over the pages of the answer in request order",
        "sync": "the strictly synchronous loop, one call for each query",
        **(gpu if config.on_gpu else {}),
    }


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return describe_chunks(value) if isinstance(value, tuple) else str(value).lower()
