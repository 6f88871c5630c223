"""The best strategy for a device and its pages, worked out from rounds, with its confidence.

Every strategy is compared with the engine's default in the same rounds. The median of the rounds'
ratios has an interval; only if all of it lies on one side of 1 there is a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from morphogen.bench.statistics import fewest_values, median_interval

# The confidence of all comparisons of one choice together.
CONFIDENCE = 0.95

FASTER, SLOWER, ALIKE, TOO_FEW = "faster", "slower", "alike", "too few rounds"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A strategy against the default.

    Attributes
    ----------
    name : str
    speedup : float
        Median over the rounds of the default's time over this one's.
    low, high : float or None
        An interval that holds it; None with too few rounds.
    verdict : str
        "faster", "slower", "alike" (the interval holds 1) or "too few rounds".
    """

    name: str
    speedup: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The best strategy for one batch size.

    Attributes
    ----------
    q : int
        Queries in the batch.
    default : str
        The strategy that the others are compared with.
    best : str or None
        The strategy to use: the default unless another is faster beyond the noise, and then the one
        with the highest speed-up. None if the default's answers were wrong.
    sure : bool
        Whether there were enough rounds to tell.
    rounds, rounds_needed : int
        The number of rounds, and the least number that can tell anything.
    confidence : float
        Of all intervals together.
    comparisons : tuple of Comparison
        With the strategies that do other work than the default and answered rightly, the fastest
        first.
    left_out : tuple of str
        The strategies that answered wrongly.
    """

    q: int
    default: str
    best: str | None
    sure: bool
    rounds: int
    rounds_needed: int
    confidence: float
    comparisons: tuple[Comparison, ...]
    left_out: tuple[str, ...]

    def against(self, name: str | None) -> Comparison | None:
        """The comparison of one strategy with the default; None if there is none."""
        return next((found for found in self.comparisons if found.name == name), None)


def choose(
    q: int,
    times: Mapping[str, Sequence[float]],
    default: str,
    *,
    wrong: Sequence[str] = (),
) -> Choice:
    """Choose the best strategy for one batch size.

    Parameters
    ----------
    q : int
    times : mapping of str to sequence of float
        By strategy the time of each round, all of the same rounds and all of different work.
    default : str
    wrong : sequence of str
        Strategies whose answers were wrong: they are never chosen.

    Returns
    -------
    Choice

    Raises
    ------
    ValueError
        If the default is not among the times, or the rounds are not the same for all.
    """
    if default not in times:
        raise ValueError(f"the default {default!r} must be among {sorted(times)}")
    rounds = len(times[default])
    if {len(values) for values in times.values()} != {rounds} or not rounds:
        lengths = {name: len(values) for name, values in times.items()}
        raise ValueError(f"all must have the same rounds, at least one, not {lengths}")
    rivals = [name for name in times if name != default and name not in wrong]
    # Each comparison has its share of the error that all together may have (Bonferroni).
    each = 1 - (1 - CONFIDENCE) / max(1, len(rivals))
    needed = fewest_values(each)
    comparisons = []
    for name in rivals if default not in wrong else ():
        ratios = [base / own for base, own in zip(times[default], times[name], strict=True)]
        interval = median_interval(ratios, each)
        comparisons.append(_comparison(name, median(ratios), interval))
    comparisons.sort(key=lambda found: found.speedup, reverse=True)
    best = next((found.name for found in comparisons if found.verdict == FASTER), default)
    return Choice(
        q=q,
        default=default,
        best=None if default in wrong else best,
        sure=default not in wrong and (not rivals or rounds >= needed),
        rounds=rounds,
        rounds_needed=needed,
        confidence=CONFIDENCE,
        comparisons=tuple(comparisons),
        left_out=tuple(name for name in times if name in wrong),
    )


def _comparison(name: str, speedup: float, interval: tuple[float, float] | None) -> Comparison:
    if interval is None:
        return Comparison(name, speedup, None, None, TOO_FEW)
    low, high = interval
    verdict = FASTER if low > 1 else SLOWER if high < 1 else ALIKE
    return Comparison(name, speedup, low, high, verdict)


HOLDS, BEATEN, NOT_MEASURED = "holds", "beaten", "not measured"


@dataclass(frozen=True, slots=True)
class CapVerdict:
    """Whether the engine's own width is still the best.

    Attributes
    ----------
    cap : int
        The engine's own width: 2 on a GPU.
    wider_exist : bool
        Whether the engine can run wider chunks when asked.
    verdict : str
        "holds": no other width is faster beyond the noise. "beaten": one is. "not measured": wider
        chunks or rounds are missing.
    why : str
        If it was not measured: the thing that was missing.
    widths : tuple of int
        The widths that were compared with it.
    choice : Choice or None
        Over the widths, by the largest batch; None if there was nothing to compare.
    """

    cap: int
    wider_exist: bool
    verdict: str
    why: str
    widths: tuple[int, ...]
    choice: Choice | None


def judge_cap(
    q: int,
    widths: Mapping[str, int],
    times: Mapping[str, Sequence[float]],
    default: str,
    *,
    wider_exist: bool,
    wider_wanted: bool,
    wrong: Sequence[str] = (),
) -> CapVerdict:
    """Judge the engine's own width.

    Parameters
    ----------
    q : int
        Queries in the batch: the largest that was measured.
    widths : mapping of str to int
        Of the default, and of the strategies that differ from it in their width alone.
    times : mapping of str to sequence of float
        As for `choose`.
    default : str
    wider_exist : bool
        Whether the engine has wider chunks.
    wider_wanted : bool
        Whether the verdict needs them: on a GPU, whose cap is far below the width of a pass. A
        CPU's own width is the widest that there is.
    wrong : sequence of str

    Returns
    -------
    CapVerdict
    """
    cap = widths[default]
    choice = choose(q, {name: times[name] for name in widths}, default, wrong=wrong)
    compared = tuple(sorted(widths[found.name] for found in choice.comparisons))
    why = ""
    if choice.best is None:
        why = "the default's answers were wrong"
    elif wider_wanted and not any(width > cap for width in compared):
        reason = "no wider chunk ran" if wider_exist else "this engine has no wider chunks"
        why = f"{reason}, of right answers" if choice.left_out else reason
    elif not compared:
        why = "no other width ran"
    elif not choice.sure:
        why = f"{choice.rounds} rounds are too few, it takes {choice.rounds_needed}"
    verdict = NOT_MEASURED if why else HOLDS if choice.best == default else BEATEN
    return CapVerdict(cap, wider_exist, verdict, why, compared, choice if compared else None)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The strategies to use on this device for these pages.

    Attributes
    ----------
    throughput : Choice
        By the largest batch that was measured.
    latency : Choice or None
        By the latency of a lone query; None if no batch of 1 was measured.
    cap : CapVerdict
        Whether the engine's own width is still the best.
    by_batch : tuple of Choice
        For each batch size.
    """

    throughput: Choice
    latency: Choice | None
    cap: CapVerdict
    by_batch: tuple[Choice, ...]


def recommend(choices: Sequence[Choice], cap: CapVerdict) -> Recommendation:
    """Put the choices together.

    Parameters
    ----------
    choices : sequence of Choice
        At least one, for different batch sizes.
    cap : CapVerdict

    Returns
    -------
    Recommendation
    """
    return Recommendation(
        throughput=max(choices, key=lambda choice: choice.q),
        latency=next((choice for choice in choices if choice.q == 1), None),
        cap=cap,
        by_batch=tuple(choices),
    )


def describe_choice(choice: Choice) -> str:
    """A choice in words, with its confidence.

    Parameters
    ----------
    choice : Choice

    Returns
    -------
    str
    """
    if choice.best is None:
        return f"none: the answers of the default, {choice.default}, were wrong"
    if not choice.comparisons:
        return f"{choice.default}, the default: no other strategy does other work"
    if not choice.sure:
        return (
            f"not sure: {choice.rounds} rounds are too few to tell strategies from the default, "
            f"{choice.default}; it takes {choice.rounds_needed}"
        )
    confidence = f"{choice.confidence:.0%}"
    best = choice.against(choice.best)
    if best is not None:
        return (
            f"{best.name}: {best.speedup:.2f}x as fast as the default, {choice.default} "
            f"({best.low:.2f} to {best.high:.2f} at {confidence})"
        )
    alike = [found.name for found in choice.comparisons if found.verdict == ALIKE]
    nearest = choice.comparisons[0]
    within = (
        f"within the noise of it: {', '.join(alike)}"
        if alike
        else f"all others are slower, {nearest.name} the least: {nearest.speedup:.2f}x as fast "
        f"({nearest.low:.2f} to {nearest.high:.2f} at {confidence})"
    )
    return f"{choice.default}, the default; {within}"


def describe_cap(cap: CapVerdict) -> str:
    """The verdict on the engine's own width in words.

    Parameters
    ----------
    cap : CapVerdict

    Returns
    -------
    str
    """
    if cap.verdict == NOT_MEASURED or cap.choice is None:
        return f"not measured whether a width of {cap.cap} is best: {cap.why}"
    others = ", ".join(map(str, cap.widths))
    if cap.verdict == HOLDS:
        return f"{cap.cap} holds: of the widths {others} none is faster beyond the noise"
    best = cap.choice.against(cap.choice.best)
    assert best is not None
    return (
        f"{cap.cap} is beaten by {best.name}: {best.speedup:.2f}x as fast ({best.low:.2f} to "
        f"{best.high:.2f} at {cap.choice.confidence:.0%})"
    )
