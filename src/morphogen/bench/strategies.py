"""The ways in which an engine may run a batch: their names, and which an engine has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from morphogen.engine.strategy import Strategy
from morphogen.planner import micro_batch_ranges
from morphogen.query import Answer, Query

ALL = "all"
SINGLE = "single"
_NAME = re.compile(r"single|chunks-([1-9]\d{0,5})(?:-lanes-([1-9]\d{0,2}))?(-graph)?")
_EXPECTED = "all, or names such as single, chunks-4, chunks-2-lanes-1 and chunks-2-graph"
_WIDE = (4, 8)
_GPU_LANES = (1, 2, 4)


class StrategyEngine(Protocol):
    """What an engine must have to be run in different ways."""

    @property
    def device(self) -> str: ...
    @property
    def default_strategy(self) -> Strategy: ...
    @property
    def widest_micro_batch(self) -> int: ...
    def answer(
        self,
        queries: list[Query],
        *,
        max_micro_batch: int | None = None,
        lanes: int | None = None,
        graph: bool = False,
    ) -> Answer:
        """See `Engine.answer`."""
        ...


def check_names(names: Iterable[str]) -> None:
    """Refuse what cannot be a strategy on any device.

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


def strategies_of(
    names: Sequence[str], engine: StrategyEngine
) -> tuple[dict[str, Strategy], tuple[str, ...]]:
    """The strategies that names stand for, on this engine.

    Parameters
    ----------
    names : sequence of str
    engine : StrategyEngine

    Returns
    -------
    tuple of (dict of str to Strategy, tuple of str)
        By the name. First come the single-query loop and the engine's default, with which all are
        compared, whoever asks. Then the names of those that "all" means but this engine lacks.

    Raises
    ------
    ValueError
        If a name is none, or the engine lacks a strategy that is named.
    """
    check_names(names)
    default = engine.default_strategy
    always = [Strategy(1, default.lanes, graph=False), default]
    named = [_parsed(name, default) for name in names if name != ALL]
    offered = _offered(engine) if ALL in names else []
    lacking = {}
    for strategy in (*always, *named, *offered):
        try:
            # The engine checks what is asked for before it does anything, and has nothing to do.
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


def _offered(engine: StrategyEngine) -> list[Strategy]:
    """What "all" means. An engine may lack some of it."""
    default = engine.default_strategy
    if engine.device == "cpu":
        widest = engine.widest_micro_batch
        widths = [1 << power for power in range(widest.bit_length())]
        return [Strategy(width, default.lanes, graph=False) for width in sorted({*widths, widest})]
    return [
        *(Strategy(default.width, lanes, graph=False) for lanes in _GPU_LANES),
        *(Strategy(width, default.lanes, graph=False) for width in _WIDE),
        Strategy(default.width, default.lanes, graph=True),
    ]


def different_work(
    strategies: Mapping[str, Strategy], default: Strategy, q: int
) -> dict[str, tuple[str, ...]]:
    """Which strategies to run for a batch size, so that none does what another does already.

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
    # The default first: what does the same as both, such as a lone query, counts as the default's.
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
