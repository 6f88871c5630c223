"""Rows of figures, with their limits, and ways to show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.rounds import Seconds, Spread
from morphogen.bench.describe import describe_size
from morphogen.cli.tables import print_table


class NotMeasuredError(Exception):
    """Rows cannot be measured here, for the reason that this names."""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure.

    Attributes
    ----------
    section, what : str
    value : float
    unit : str
        "x" for a ratio within the same rounds; else "s", "bytes" or "/s".
    limit : float or None
        The design's target, if it has one.
    at_least : bool
        Whether larger is better.
    low, high : float or None
        The quartiles, if the value is a median over rounds.
    """

    section: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(
        cls,
        section: str,
        what: str,
        rounds: Seconds,
        unit: str = "x",
        limit: float | None = None,
        at_least: bool = False,
    ) -> Row:
        """Make a row of the median and the quartiles over rounds."""
        spread = Spread.of(rounds)
        return cls(section, what, spread.median, unit, limit, at_least, spread.low, spread.high)

    @property
    def missed(self) -> bool:
        """Return whether the value misses its limit."""
        if self.limit is None:
            return False
        return self.value < self.limit if self.at_least else self.value > self.limit

    def cells(self) -> tuple[str, ...]:
        """Return the row in words, without its section."""
        quartiles = ""
        if self.low is not None and self.high is not None:
            quartiles = f"{describe(self.low, self.unit)} to {describe(self.high, self.unit)}"
        target = ""
        if self.limit is not None:
            target = f"{'>=' if self.at_least else '<='} {describe(self.limit, self.unit)}"
        verdict = "" if self.limit is None else "MISSED" if self.missed else "met"
        return self.what, describe(self.value, self.unit), quartiles, target, verdict


def describe(value: float, unit: str) -> str:
    """Write a figure with three digits: "13.7 ms", "1.25x"."""
    if unit == "x":
        return f"{value:.2f}x"
    if unit == "bytes":
        return describe_size(int(value))
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
            if value * factor >= 0.9995:
                return f"{value * factor:.3g} {name}"
        return f"{value * 1e9:.3g} ns"
    return f"{value:,.0f} {unit}"


def summary(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row.limit is not None]
    missed = sum(row.missed for row in judged)
    return f"{len(judged) - missed} of {len(judged)} targets are met."


def show(
    machine: dict[str, str], rows: Sequence[Row], notes: Sequence[str], console: Console
) -> None:
    """Print everything for people."""
    for key, text in machine.items():
        console.print(f"{key:16}{text}", highlight=False)
    for section in dict.fromkeys(row.section for row in rows):
        table = Table("what", "median", "quartiles", "target", "", title=section, box=SIMPLE_HEAD)
        for row in rows:
            if row.section == section:
                table.add_row(*row.cells(), style="bold red" if row.missed else None)
        print_table(table, console)
    for line in (*notes, summary(rows)):
        console.print(line, highlight=False)


def as_dict(machine: dict[str, str], rows: Sequence[Row], notes: Sequence[str]) -> dict[str, Any]:
    """Return the same in types that JSON has."""
    shown = [{**asdict(row), "missed": row.missed} for row in rows]
    return {"machine": machine, "notes": list(notes), "rows": shown, "summary": summary(rows)}
