"""The strategies of a benchmark: their names, the ones that an engine has, and their times.

A strategy is a way in which an engine may run a batch. All are measured side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
from morphogen.bench.trial import Trial
from morphogen.engine.base import Engine
from morphogen.engine.strategy import Strategy
from morphogen.planner import MAX_KEYS_PER_QUERY, micro_batch_ranges

ALL = "all"
SINGLE = "single"
_NAME = re.compile(r"single|chunks-([1-9]\d{0,5})(?:-lanes-([1-9]\d{0,2}))?(-graph)?")
_EXPECTED = "all, or names such as single, chunks-4, chunks-2-lanes-1 and chunks-2-graph"
_WIDE = (4, 8)
_WIDEST = (16, 32)  # as far as an engine has them
_GPU_LANES = (1, 2, 4)
_ALWAYS_RUN = ("single", "batch")  # contenders of every trial that are strategies, too


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are no strategy on any device.

    Parameters
    ----------
    names : iterable of str

    Raises
    ------
    ValueError
        If one is neither "all" nor of the form of a name.
    """
    for name in names:
        if name != ALL and not _NAME.fullmatch(name):
            raise ValueError(f"strategies must be {_EXPECTED}, not {name!r}")


def strategy_name(strategy: Strategy, default: Strategy) -> str:
    """The name of a strategy.

    Parameters
    ----------
    strategy, default : Strategy
        The second is the engine's own: its lanes go without saying.

    Returns
    -------
    str
    """
    lanes = "" if strategy.lanes == default.lanes else f"-lanes-{strategy.lanes}"
    graph = "-graph" if strategy.graph else ""
    if strategy.width == 1 and not lanes and not graph:
        return SINGLE
    return f"chunks-{strategy.width}{lanes}{graph}"


def default_of(engine: Engine, keys_per_query: int) -> Strategy:
    """The strategy of an engine for which none is asked for, its width in queries.

    Parameters
    ----------
    engine : Engine
    keys_per_query : int

    Returns
    -------
    Strategy
    """
    own = engine.default_strategy
    return Strategy(own.width_for(keys_per_query), own.lanes, own.graph)


def strategies_of(
    names: Sequence[str], engine: Engine, keys_per_query: int = MAX_KEYS_PER_QUERY
) -> tuple[dict[str, Strategy], tuple[str, ...]]:
    """The strategies that names stand for, on this engine.

    Parameters
    ----------
    names : sequence of str
    engine : Engine
    keys_per_query : int, optional
        Keys of each query, 3 by default.

    Returns
    -------
    tuple of (dict of str to Strategy, tuple of str)
        By the name. First come the single-query loop and the engine's default, with which all are
        compared. The second has the names of those that "all" means but this engine lacks.

    Raises
    ------
    ValueError
        If a name is none, or the engine lacks a strategy that is named.
    """
    check_names(names)
    default = default_of(engine, keys_per_query)
    always = [Strategy(1, default.lanes, graph=False), default]
    named = [_parsed(name, default) for name in names if name != ALL]
    offered = _offered(engine, default) if ALL in names else []
    lacking = {}
    for strategy in (*named, *offered):
        if strategy == default:
            continue  # it may be wider than what may be asked for
        try:
            # An empty batch: the engine checks the strategy, and then has nothing to do.
            engine.answer(
                [], max_micro_batch=strategy.width, lanes=strategy.lanes, graph=strategy.graph
            )
        except ValueError:
            if strategy not in offered:
                raise
            lacking[strategy_name(strategy, default)] = strategy
    every = {strategy_name(strategy, default): strategy for strategy in (*always, *offered, *named)}
    return {name: every[name] for name in every if name not in lacking}, tuple(lacking)


def _parsed(name: str, default: Strategy) -> Strategy:
    match = _NAME.fullmatch(name)
    assert match is not None
    width, lanes, graph = match.groups()
    return Strategy(int(width or 1), int(lanes or default.lanes), graph=graph is not None)


def _offered(engine: Engine, default: Strategy) -> list[Strategy]:
    """The strategies that "all" means. An engine may lack some of them."""
    if not _is_one_gpu(engine):
        widest = engine.widest_micro_batch
        widths = [1 << power for power in range(widest.bit_length())]
        return [Strategy(width, default.lanes, graph=False) for width in sorted({*widths, widest})]
    return [
        *(Strategy(default.width, lanes, graph=False) for lanes in _GPU_LANES),
        *(Strategy(width, default.lanes, graph=False) for width in _WIDE),
        *(
            Strategy(width, default.lanes, graph=False)
            for width in _WIDEST
            if width <= engine.widest_micro_batch
        ),
        Strategy(default.width, default.lanes, graph=True),
    ]


def _is_one_gpu(engine: Engine) -> bool:
    return engine.device.startswith("cuda:") and "," not in engine.device


def different_work(
    strategies: Mapping[str, Strategy], default: Strategy, q: int
) -> dict[str, tuple[str, ...]]:
    """Choose the strategies to run for a batch size, so that no two do the same work.

    Parameters
    ----------
    strategies : mapping of str to Strategy
    default : Strategy
        The engine's own. It and the single-query loop are always run.
    q : int
        Queries in the batch.

    Returns
    -------
    dict of str to tuple of str
        The names of those to run, each with the names of those that do the same: as many chunks of
        the same sizes, as many lanes in use, a graph or none.
    """

    def work(strategy: Strategy) -> tuple[object, ...]:
        chunks = micro_batch_ranges(q, strategy.width)
        return tuple(chunks), min(strategy.lanes, len(chunks)), strategy.graph

    always = (SINGLE, strategy_name(default, default))
    # The default first: work that is the same for both, a lone query's, counts as the default's.
    order = [*reversed(always), *(name for name in strategies if name not in always)]
    run: dict[str, list[str]] = {}
    by_work: dict[tuple[object, ...], str] = {}
    for name in order:
        first = by_work.setdefault(work(strategies[name]), name)
        if first == name or name in always:
            run[name] = []
        if first != name:
            run[first].append(name)
    return {name: tuple(run[name]) for name in strategies if name in run}


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """The times of one strategy for one batch size.

    Attributes
    ----------
    q : int
        Queries in the batch.
    name : str
        "single", "chunks-W", "chunks-W-lanes-L", with "-graph" if a CUDA graph is replayed;
        lanes are named if they are not the engine's own.
    width, lanes : int
        Queries that may share a pass, and chunks under way at a time.
    graph : bool
        Whether a CUDA graph is replayed.
    default : bool
        Whether it is the engine's default.
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
    """The strategies of a run, and their rows for each batch size.

    Parameters
    ----------
    names : sequence of str
        As `strategies_of` takes them.
    engine : Engine
    keys_per_query : int

    Attributes
    ----------
    rows : list of StrategyRow
        For each batch size that was added, for each strategy that does work of its own.
    lacking : tuple of str
        The names of strategies that "all" means but this engine lacks.

    Raises
    ------
    ValueError
        If a name is none, or the engine has no such strategy.
    """

    def __init__(self, names: Sequence[str], engine: Engine, keys_per_query: int) -> None:
        self.rows: list[StrategyRow] = []
        self.lacking: tuple[str, ...]
        self._strategies, self.lacking = strategies_of(names, engine, keys_per_query)
        self._default = default_of(engine, keys_per_query)
        self._default_name = strategy_name(self._default, self._default)
        self._on_gpu = _is_one_gpu(engine)
        self._wider_exist = engine.widest_micro_batch > self._default.width
        self._choices: list[Choice] = []
        self._caps: dict[int, CapVerdict] = {}

    def more(self, q: int) -> dict[str, Strategy]:
        """The strategies that a trial must run besides the loops and the batch.

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
        """Take the measurements of a trial with the strategies of `more`.

        Parameters
        ----------
        trial : Trial
        """
        run = different_work(self._strategies, self._default, trial.q)
        rows = [self._row(trial, name, same_work) for name, same_work in run.items()]
        # A strategy that does the default's work can differ from it by noise alone.
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
        """The recommendation by all batch sizes that were added: at least one."""
        return recommend(self._choices, self._caps[max(self._caps)])

    def _contender(self, name: str) -> str:
        """The name of a strategy in a trial, which runs two of them in any case."""
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
