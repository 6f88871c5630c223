"""What the regression gate holds benchmarks to, and how it judges what it measured.

Counts come out the same on a busy machine: one that exceeds its margin fails. Ratios are taken
within one run, and still differ from run to run: only those that exceed their margin twice fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isnan
from statistics import median
from typing import Literal

# As asv has it: None where a benchmark failed, NaN where it does not apply.
Value = float | None
# Of one benchmark, the parent's and the head's values, which were measured one after the other.
Pair = tuple[Value, Value]
# Measures benchmarks in so many interleaved rounds.
Measure = Callable[[Sequence[str], int], Mapping[str, Sequence[Pair]]]


class Outcome(StrEnum):
    """How a benchmark came out."""

    SAME = "same"
    BETTER = "better"
    WORSE = "WORSE"
    ACCEPTED = "worse, accepted"
    NEW = "new"
    LOST = "LOST"
    BROKEN = "BROKEN"
    BROKEN_BEFORE = "BROKEN, before, too"
    UNMEASURED = "NOT MEASURED"
    ABSENT = "n/a"


# What failed on the parent, too, must be mended all the same, or nobody ever would.
FAILURES = (Outcome.WORSE, Outcome.BROKEN, Outcome.BROKEN_BEFORE, Outcome.UNMEASURED)


@dataclass(frozen=True, slots=True)
class Rule:
    """How much worse than the parent's the values of some benchmarks may be.

    Attributes
    ----------
    pattern : str
        Matches whole names, as asv writes them: ``module.Class.method('parameter', 1)``.
    kind : str
    margin : float
        A part of the parent's value.
    slack : float
        Added to it, for what may be 0.
    better : str
    required : bool
        Whether n/a fails, because the gate is run where all tools are.
    """

    pattern: str
    kind: Literal["count", "ratio"]
    margin: float
    slack: float = 0.0
    better: Literal["lower", "higher"] = "lower"
    required: bool = False


# The first that matches holds. What none matches must only run: times, and ratios that differ more
# from run to run than a regression would (asv_bench/README.md has how much).
RULES = (
    # Bytes, calls, launches: nothing but a change of the code can move them.
    Rule(r"host\.Calls\.track_(launches|driver_calls)_a_call\(.*\)", "count", 0, required=True),
    # Half an allocation a call: the interpreter grows a free list of its own now and then.
    Rule(r"host\.Calls\.track_allocations_a_call\(.*\)", "count", 0, slack=0.5, required=True),
    Rule(r"callgrind\.Work\.track_heap_allocations_avx2\(.*\)", "count", 0, required=True),
    Rule(r"memory\.\w+\.track_\w+_bytes(_a_query)?\(.*\)", "count", 0, required=True),
    Rule(r"importing\.track_cuda_modules_loaded", "count", 0, required=True),
    # The interpreter fills a cache now and then; a leak would keep a block a call, of 1,000.
    Rule(r"(planning\.Pack|host\.Calls)\.track_blocks_kept\(.*\)", "count", 0, slack=20),
    Rule(r"planning\.Pack\.track_peak_bytes\(.*\)", "count", 0, slack=256, required=True),
    Rule(r"importing\.track_modules_loaded", "count", 0, slack=2, required=True),
    # Addresses and the environment's size move a few instructions and lines of the simulated cache.
    Rule(r"callgrind\.Work\.track_instructions_avx2\(.*\)", "count", 0.02, required=True),
    Rule(r"callgrind\.Scan\.track_bytes_read_avx2\(.*\)", "count", 0.02, required=True),
    # ptxas gives the same for the same PTX; a few registers cost nothing by themselves.
    Rule(r"kernel_budget\.Kernel\.track_spills\(.*\)", "count", 0, required=True),
    Rule(r"kernel_budget\.Scan\.track_lop3_per_vector_and_key\(.*\)", "count", 0.02, required=True),
    Rule(r"kernel_budget\.Kernel\.track_instructions_per_load\(.*\)", "count", 0.02, required=True),
    Rule(r"kernel_budget\.Kernel\.track_registers\(.*\)", "count", 0.05, required=True),
    Rule(r"kernel_budget\.Kernel\.track_shared_bytes\(.*\)", "count", 0.05, required=True),
    # Within a run, interleaved, on the same instruction set, one thread.
    Rule(
        r"scan\.Answer\.track_ratio_to_read\('(1 x 1|1 x 3|2 x 3|8 x 3)', 1\)",
        "ratio",
        0.10,
        required=True,
    ),
    Rule(
        r"scan\.Speedup\.track_speedup_over_single_loop\((2|4|8|32), 1\)",
        "ratio",
        0.10,
        better="higher",
        required=True,
    ),
)


def find_rule(benchmark: str, rules: Iterable[Rule] = RULES) -> Rule | None:
    """The rule for a benchmark, if it has one."""
    return next((rule for rule in rules if re.fullmatch(rule.pattern, benchmark)), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one benchmark.

    Attributes
    ----------
    benchmark : str
    kind : str
        "count", "ratio", or "runs" for what must only run.
    before, after : float or None
        The parent's and the head's value.
    change : float or None
        By what part of the parent's value the head's is greater, or smaller if negative. Of a ratio
        it is the median over the rounds.
    margin : float
    outcome : Outcome
    note : str
    """

    benchmark: str
    kind: str
    before: Value
    after: Value
    change: float | None
    margin: float
    outcome: Outcome
    note: str = ""

    @property
    def fails(self) -> bool:
        return self.outcome in FAILURES


def is_number(value: Value) -> bool:
    return value is not None and not isnan(value)


def outcome_without_numbers(before: Value, after: Value, required: bool) -> Outcome:
    """The outcome where one or both have no number."""
    if after is None:
        return Outcome.BROKEN_BEFORE if before is None else Outcome.BROKEN
    if not isnan(after):
        return Outcome.NEW
    # What the parent measured and the head does not is a hole, whatever the rule.
    return Outcome.UNMEASURED if required or is_number(before) else Outcome.ABSENT


def judge_count(benchmark: str, rule: Rule | None, before: Value, after: Value) -> Verdict:
    """Judge one count, or, without a rule, whether a benchmark runs."""
    kind, margin = (rule.kind, rule.margin) if rule else ("runs", 0.0)
    if before is None or after is None or isnan(before) or isnan(after):
        outcome = outcome_without_numbers(before, after, bool(rule and rule.required))
        return Verdict(benchmark, kind, before, after, None, margin, outcome)
    change = (after - before) / abs(before) if before else None
    if rule is None:
        return Verdict(benchmark, kind, before, after, change, margin, Outcome.SAME)
    excess = after - before if rule.better == "lower" else before - after
    # Values that differ by rounding only are the same.
    allowed = rule.margin * abs(before) + rule.slack + 1e-9 * abs(before)
    outcome = Outcome.SAME
    if excess > allowed:
        outcome = Outcome.WORSE
    elif excess < -allowed:
        outcome = Outcome.BETTER
    return Verdict(benchmark, kind, before, after, change, margin, outcome)


def judge_pairs(benchmark: str, rule: Rule, pairs: Sequence[Pair]) -> Verdict:
    """Judge a ratio by the median change over its rounds."""
    # One round without a number is as bad as all.
    before, after = (
        next((value for value in values if not is_number(value)), values[0])
        for values in zip(*pairs, strict=True)
    )
    if not is_number(before) or not is_number(after):
        return judge_count(benchmark, rule, before, after)
    numbers = [(b, a) for b, a in pairs if b is not None and a is not None]
    change = median(a / b for b, a in numbers) - 1
    loss = change if rule.better == "lower" else 1 / (1 + change) - 1
    outcome = Outcome.SAME
    if loss > rule.margin:
        outcome = Outcome.WORSE
    elif loss < -rule.margin:
        outcome = Outcome.BETTER
    before, after = (median(values) for values in zip(*numbers, strict=True))
    return Verdict(benchmark, rule.kind, before, after, change, rule.margin, outcome)


def judge_ratios(
    benchmarks: Sequence[str],
    measure: Measure,
    rounds: int,
    repeat_rounds: int,
    rules: Sequence[Rule] = RULES,
) -> list[Verdict]:
    """Measure ratios and judge them; what is worse is measured once more, and judged by that.

    Parameters
    ----------
    benchmarks : sequence of str
        Each has a rule.
    measure : callable
    rounds, repeat_rounds : int
        Of the first measurement and of the repeat.

    Returns
    -------
    list of Verdict
    """

    def judge(names: Sequence[str], count: int) -> dict[str, Verdict]:
        judged = {}
        for name, pairs in measure(names, count).items():
            rule = find_rule(name, rules)
            assert rule is not None, name
            judged[name] = judge_pairs(name, rule, pairs)
        return judged

    verdicts = judge(benchmarks, rounds)
    suspects = [name for name, verdict in verdicts.items() if verdict.outcome is Outcome.WORSE]
    for name, again in (judge(suspects, repeat_rounds) if suspects else {}).items():
        first = verdicts[name].change or 0.0
        verdicts[name] = replace(again, note=f"repeated: {first:+.1%} at first")
    return list(verdicts.values())
