"""What the gate found, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isnan

from rich.console import Console
from rich.table import Table

from gate_rules import Outcome, Value, Verdict

# What did not move is only numbered, but for the ratios: how far from failing they are is of use.
_ALWAYS_SHOWN = "ratio"
_SILENT = (Outcome.SAME, Outcome.ABSENT)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a comparison.

    Attributes
    ----------
    base, head : str
        The commits' hashes.
    verdicts : tuple of Verdict
    notes : tuple of str
        What a reader must know beside them.
    """

    base: str
    head: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.fails]


def show_value(value: Value) -> str:
    if value is None:
        return "failed"
    return "n/a" if isnan(value) else f"{value:,.6g}"


def make_table(title: str, verdicts: Iterable[Verdict]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("benchmark", overflow="fold")
    for heading in ("parent", "head", "change", "margin"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("outcome")
    for verdict in verdicts:
        lost = verdict.outcome is Outcome.LOST
        table.add_row(
            verdict.benchmark,
            *("" if lost else show_value(value) for value in (verdict.before, verdict.after)),
            "" if verdict.change is None else f"{verdict.change:+.2%}",
            "" if verdict.kind == "runs" else f"{verdict.margin:.0%}",
            ": ".join(filter(None, (verdict.outcome.value, verdict.note))),
            style="bold red" if verdict.fails else None,
        )
    return table


def print_tables(report: Report) -> None:
    """Print what moved, all ratios, and how many there were of each outcome."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    shown = {"count": "Counts that moved", "ratio": "Ratios", "runs": "Benchmarks with no rule"}
    for kind, title in shown.items():
        rows = [
            verdict
            for verdict in report.verdicts
            if verdict.kind == kind and (kind == _ALWAYS_SHOWN or verdict.outcome not in _SILENT)
        ]
        if rows:
            console.print(make_table(title, rows), markup=False)
    for note in report.notes:
        console.print(note, markup=False)
    counted = Counter((verdict.kind, verdict.outcome.value) for verdict in report.verdicts)
    for kind, title in (("count", "counts"), ("ratio", "ratios"), ("runs", "without a rule")):
        line = ", ".join(f"{n} {outcome}" for (k, outcome), n in counted.items() if k == kind)
        console.print(f"{title}: {line or 'none'}", markup=False)
    commits = f"{report.head[:10]} against {report.base[:10]}"
    failed = len(report.failures)
    console.print(f"gate: {commits}: {f'{failed} FAILED' if failed else 'passed'}", markup=False)


def as_json(report: Report) -> str:
    """The report as JSON: null where a benchmark failed, "n/a" where it does not apply."""
    verdicts = []
    for verdict in report.verdicts:
        row = asdict(verdict) | {"outcome": verdict.outcome.name.lower(), "fails": verdict.fails}
        for side in ("before", "after"):
            if row[side] is not None and isnan(row[side]):
                row[side] = "n/a"
        verdicts.append(row)
    content = {
        "base": report.base,
        "head": report.head,
        "passed": not report.failures,
        "notes": report.notes,
        "verdicts": verdicts,
    }
    return json.dumps(content, indent=1)
