"""What a benchmark measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from morphogen.bench.concurrency import ConcurrencyRow
from morphogen.bench.config import BenchmarkConfig
from morphogen.bench.matrix import StrategyRow
from morphogen.bench.phases import PhaseRow
from morphogen.bench.recommend import Recommendation
from morphogen.bench.rounds import RoundTimes
from morphogen.bench.trial import BenchmarkRow


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """A whole run.

    Attributes
    ----------
    config : BenchmarkConfig
    device : str
        What the engine said that it used.
    instruction_set : str
        The CPU's, or what a GPU's kernels were compiled from: "compute_80".
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
    rounds : tuple of RoundTimes
        For each batch size what every round took, one by one.
    phases : tuple of PhaseRow
        If the configuration asks for them: for each batch size one by one and, if that differs, in
        the engine's chunks.
    strategies : tuple of StrategyRow
        If the configuration asks for them: a row for each batch size and strategy.
    strategies_lacking : tuple of str
        Strategies that "all" means but the engine has not.
    recommendation : Recommendation or None
        Which strategy is best, if they were measured.
    concurrency : tuple of ConcurrencyRow
        If the configuration asks for it: rows for each number of callers.
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
    rounds: tuple[RoundTimes, ...] = ()
    phases: tuple[PhaseRow, ...] = ()
    strategies: tuple[StrategyRow, ...] = ()
    strategies_lacking: tuple[str, ...] = ()
    recommendation: Recommendation | None = None
    concurrency: tuple[ConcurrencyRow, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        data = asdict(self)
        if self.config.matrix_file is not None:
            data["config"]["matrix_file"] = str(self.config.matrix_file)
        return {**data, "ok": not self.failures}
