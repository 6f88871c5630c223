"""The strategy matrix: every way to run a batch, side by side, and which of them is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morphogen.bench.recommend import (
    CapVerdict,
    Choice,
    Recommendation,
    choose,
    judge_cap,
    recommend,
)
from morphogen.bench.statistics import Spread, p99
from morphogen.bench.strategies import (
    SINGLE,
    StrategyEngine,
    different_work,
    strategies_of,
    strategy_name,
)
from morphogen.bench.trial import Trial
from morphogen.engine.strategy import Strategy

_ALWAYS_RUN = ("single", "batch")  # what a trial runs in any case, by the names it has there


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """What one strategy took for one batch size.

    Attributes
    ----------
    q : int
        Queries in the batch.
    name : str
        "single", "chunks-W", "chunks-W-lanes-L", with "-graph" where a CUDA graph is replayed;
        lanes are named where they are not the engine's own.
    width, lanes : int
        Queries that may share a pass, and chunks under way at a time.
    graph : bool
        Whether a CUDA graph is replayed.
    default : bool
        Whether the engine runs like this when nothing is asked for.
    same_work : tuple of str
        Strategies that do exactly the same with a batch of this size, and were not run again.
    micro_batch_sizes : tuple of int
        Queries in each chunk that ran.
    ms : Spread
        Milliseconds a batch.
    p99_ms : float or None
        The 99th percentile; None with fewer than 100 rounds.
    qps : float
        Queries a second, by the median.
    vs_single : Spread
        The time of the single-query loop over this one's, in the same round: the speed-up.
    vs_default : Spread
        The time of the default strategy over this one's, in the same round.
    vs_read : Spread
        This one's time over that of a pure read in the same round.
    correct : bool
        Whether every check of its answers passed.
    """

    q: int
    name: str
    width: int
    lanes: int
    graph: bool
    default: bool
    same_work: tuple[str, ...]
    micro_batch_sizes: tuple[int, ...]
    ms: Spread
    p99_ms: float | None
    qps: float
    vs_single: Spread
    vs_default: Spread
    vs_read: Spread
    correct: bool


class StrategyMatrix:
    """The strategies of a run, and what became of them.

    Parameters
    ----------
    names : sequence of str
        As `strategies_of` takes them.
    engine : StrategyEngine

    Attributes
    ----------
    rows : list of StrategyRow
        For each batch size that was added, for each strategy that does work of its own.
    lacking : tuple of str
        What "all" means, but this engine has not.

    Raises
    ------
    ValueError
        If a name is none, or the engine has no such strategy.
    """

    def __init__(self, names: Sequence[str], engine: StrategyEngine) -> None:
        self.rows: list[StrategyRow] = []
        self.lacking: tuple[str, ...]
        self._strategies, self.lacking = strategies_of(names, engine)
        self._default = engine.default_strategy
        self._default_name = strategy_name(self._default, self._default)
        self._on_gpu = engine.device != "cpu"
        self._wider_exist = engine.widest_micro_batch > self._default.width
        self._choices: list[Choice] = []
        self._caps: dict[int, CapVerdict] = {}

    def more(self, q: int) -> dict[str, Strategy]:
        """What a trial must run besides the loops and the batch.

        Parameters
        ----------
        q : int
            Queries in the batch.

        Returns
        -------
        dict of str to Strategy
        """
        run = different_work(self._strategies, self._default, q)
        return {
            name: self._strategies[name] for name in run if self._contender(name) not in _ALWAYS_RUN
        }

    def add(self, trial: Trial) -> None:
        """Take what a trial with `more` has measured.

        Parameters
        ----------
        trial : Trial
        """
        run = different_work(self._strategies, self._default, trial.q)
        rows = [self._row(trial, name, same_work) for name, same_work in run.items()]
        # What does the default's work can differ from it by noise alone.
        rivals = [row for row in rows if row.name not in run[self._default_name]]
        times = {row.name: trial.times[self._contender(row.name)] for row in rivals}
        wrong = [row.name for row in rows if not row.correct]
        self.rows += rows
        self._choices.append(choose(trial.q, times, self._default_name, wrong=wrong))
        self._caps[trial.q] = judge_cap(
            trial.q,
            {
                row.name: row.width
                for row in rivals
                if (row.lanes, row.graph) == (self._default.lanes, self._default.graph)
            },
            times,
            self._default_name,
            wider_exist=self._wider_exist,
            wider_wanted=self._on_gpu,
            wrong=wrong,
        )

    def recommendation(self) -> Recommendation:
        """What follows from all batch sizes that were added: at least one."""
        return recommend(self._choices, self._caps[max(self._caps)])

    def _contender(self, name: str) -> str:
        """What a strategy is called in a trial, which runs two of them in any case."""
        if self._strategies[name] == self._default:
            return "batch"
        return "single" if name == SINGLE else name

    def _row(self, trial: Trial, name: str, same_work: tuple[str, ...]) -> StrategyRow:
        strategy, contender = self._strategies[name], self._contender(name)
        own = trial.times[contender]
        ms = Spread.of(own)
        return StrategyRow(
            q=trial.q,
            name=name,
            width=strategy.width,
            lanes=strategy.lanes,
            graph=strategy.graph,
            default=strategy == self._default,
            same_work=same_work,
            micro_batch_sizes=trial.answer(contender).micro_batch_sizes,
            ms=ms,
            p99_ms=p99(own),
            qps=1e3 * trial.q / ms.median,
            vs_single=Spread.of_ratio(trial.times["single"], own),
            vs_default=Spread.of_ratio(trial.times["batch"], own),
            vs_read=Spread.of_ratio(own, trial.times["read"]),
            correct=not trial.faults_of(contender),
        )
