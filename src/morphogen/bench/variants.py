"""The variants of a GPU's kernels in a benchmark: which run for a batch, and which is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from morphogen.bench.statistics import Spread
from morphogen.bench.trial import BenchmarkRow, Trial
from morphogen.engine.base import Engine
from morphogen.engine.cuda.variants import DEFAULT, find, kernel_keys
from morphogen.engine.strategy import Strategy

if TYPE_CHECKING:
    from morphogen.engine.cuda import CudaEngine

ALL = "all"
# The chunks that are measured, in queries: that of a lone query, the default ones, and those that a
# caller may ask for.
WIDTHS = (1, 2, 4, 8)
# A variant is taken if it gains this much, and gains in three of four rounds: less is noise.
_LEAST_GAIN = 1.01


@dataclass(frozen=True, slots=True)
class BestVariant:
    """The best variant for chunks of one width.

    Attributes
    ----------
    width : int
        Queries of a chunk.
    keys : int
        The most keys of the kernel that runs them.
    q : int
        Queries of the batch that decided it.
    name : str
        "default", or a variant that was faster.
    gain : Spread
        The time of the default over that of the fastest variant, in the same round.
    fastest : str
        The variant that took the least time besides the default; empty if there is none.
    """

    width: int
    keys: int
    q: int
    name: str
    gain: Spread
    fastest: str


class VariantMatrix:
    """The variants of a run, and their rows for each batch size.

    Parameters
    ----------
    names : sequence of str
        "all", or names; the default is measured in any case.
    engine : Engine
        That of one GPU.
    keys_per_query : int

    Attributes
    ----------
    rows : list of BenchmarkRow
        With the variant's times as the batch's.
    best : dict of int to BestVariant
        By the width of chunks, by the largest batch that was added.

    Raises
    ------
    ValueError
        If the engine has no such variant.
    """

    def __init__(self, names: Sequence[str], engine: Engine, keys_per_query: int) -> None:
        self.rows: list[BenchmarkRow] = []
        self.best: dict[int, BestVariant] = {}
        self._keys = keys_per_query
        self._lanes = engine.default_strategy.lanes
        for name in names:
            if name != ALL:
                engine.answer([], variant=name)  # the engine checks the name
        every = cast("CudaEngine", engine).variants
        self._names = every if ALL in names else tuple(dict.fromkeys((DEFAULT, *names)))

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
        return {
            contender(name, width): Strategy(width, self._lanes, graph=False, variant=name)
            for width, names in self._run(q).items()
            for name in names
        }

    def _run(self, q: int) -> Mapping[int, list[str]]:
        """The variants to run for a batch size, by the width of chunks that are all of a kernel."""
        run = {}
        for width in WIDTHS:
            keys = kernel_keys(width * self._keys)
            names = [name for name in self._names if name == DEFAULT or keys in find(name).keys]
            fits = q == 1 if width == 1 else q % width == 0
            if fits and len(names) > 1:
                run[width] = names
        return run

    def add(self, trial: Trial) -> None:
        """Take the measurements of a trial with the strategies of `more`.

        Parameters
        ----------
        trial : Trial
        """
        for width, names in self._run(trial.q).items():
            wrong = {name for name in names if trial.faults_of(contender(name, width))}
            self.rows += [
                trial.row(correct=name not in wrong, contender=contender(name, width), variant=name)
                for name in names
            ]
            base = trial.times[contender(DEFAULT, width)]
            gains = {
                name: Spread.of_ratio(base, trial.times[contender(name, width)])
                for name in names
                if name != DEFAULT and name not in wrong
            }
            fastest = max(gains, key=lambda name: gains[name].median, default="")
            gain = gains.get(fastest, Spread(1.0, 1.0, 1.0))
            pays = gain.median >= _LEAST_GAIN and gain.low > 1
            before = self.best.get(width)
            if before is None or before.q <= trial.q:
                keys = kernel_keys(width * self._keys)
                name = fastest if pays else DEFAULT
                self.best[width] = BestVariant(width, keys, trial.q, name, gain, fastest)


def contender(variant: str, width: int) -> str:
    """The name in a trial of a variant that runs in chunks of a width."""
    return f"{variant} in chunks of {width}"


def describe_best(best: BestVariant) -> str:
    """What was best, in words.

    Parameters
    ----------
    best : BestVariant

    Returns
    -------
    str
    """
    gain = f"{best.gain.median:.3f}x [{best.gain.low:.3f}-{best.gain.high:.3f}]"
    if best.name != DEFAULT:
        return f"{best.name}, {gain} as fast as the default"
    if not best.fastest:
        return "the default: no variant gave right answers"
    return f"the default; the best variant, {best.fastest}, is {gain} as fast"
