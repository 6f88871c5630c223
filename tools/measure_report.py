"""Rows of figures as tables for people, as Markdown and as JSON, and what became of the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from measure_targets import Row

HEADINGS = ("page", "what", "time", "ratio", "quartiles", "target", "met")
NUMERIC = ("page", "time", "ratio", "quartiles")
OWN_NOTE = "* a row of the table of targets itself."


def in_units(seconds: float) -> tuple[float, str]:
    """The factor and the name of the largest unit in which a time is 1 or more."""
    units = ((1.0, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns"))
    return next((unit for unit in units if seconds * unit[0] >= 0.9995), units[-1])


def describe_seconds(seconds: float) -> str:
    """A time of three digits: "13.7 ms"."""
    scale, unit = in_units(seconds)
    return f"{seconds * scale:.3g} {unit}"


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, under `HEADINGS`."""
    if row.ratio:
        ratio = f"{row.ratio.median:.2f}x"
        quartiles = f"{row.ratio.low:.2f} to {row.ratio.high:.2f}"
    else:
        scale, _ = in_units(row.seconds.median)
        ratio = ""
        quartiles = f"{row.seconds.low * scale:.3g} to {row.seconds.high * scale:.3g}"
    target = ""
    if row.target:
        target = row.target.text + (" *" if row.target.own else "")
    return (
        f"{row.page_size:,}" if row.page_size else "",
        row.what,
        describe_seconds(row.seconds.median),
        ratio,
        quartiles,
        target,
        row.verdict,
    )


def sections(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each section, in the order in which they came."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.section, []).append(row)
    return found


def missed(rows: Sequence[Row]) -> list[Row]:
    """Those that do not meet their target."""
    return [row for row in rows if row.verdict == "FAIL"]


def describe_misses(rows: Sequence[Row]) -> list[str]:
    """A line for each section and kind of row that misses: page sizes, figures, the limit."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in missed(rows):
        assert row.target is not None
        # A digit more than the tables have: what misses by little would look as if it met.
        value = f"{row.ratio.median:.3f}x" if row.ratio else describe_seconds(row.seconds.median)
        page = f"{row.page_size:,} B " if row.page_size else ""
        own = " *" if row.target.own else ""
        key = (row.section, row.what, row.target.text)
        groups.setdefault(key, []).append(f"{page}{value}{own}")
    return [
        f"{section}: {what} (wanted {wanted}): {', '.join(values)}"
        for (section, what, wanted), values in groups.items()
    ]


def summary(rows: Sequence[Row]) -> str:
    """How many rows meet their target, all in all and of the table's own."""
    judged = [row for row in rows if row.target]
    own = [row for row in judged if row.target and row.target.own]
    if not judged:
        return "No row has a target."
    return (
        f"{len(judged) - len(missed(judged))} of {len(judged)} rows meet their target; "
        f"{len(own) - len(missed(own))} of {len(own)} of those of the table of targets itself (*)."
    )


def show(
    machine: dict[str, str], rows: Sequence[Row], notes: Sequence[str], console: Console
) -> None:
    """Print everything for people."""
    for key, value in machine.items():
        console.print(f"{key:16}{value}", highlight=False)
    for note in notes:
        console.print(f"\n{note}", highlight=False)
    for section, members in sections(rows).items():
        table = Table(
            title=section,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),  # so that a terminal of 80 holds it
        )
        used = _used(members)
        for heading in used:
            justify = "right" if heading in NUMERIC else "left"
            table.add_column(heading, no_wrap=True, justify=justify)  # type: ignore[arg-type]
        for row in members:
            shown = dict(zip(HEADINGS, cells(row), strict=True))
            style = "bold red" if row.verdict == "FAIL" else None
            table.add_row(*(shown[heading] for heading in used), style=style)
        console.print(table)
    for line in describe_misses(rows):
        console.print(f"missed: {line}", style="bold red", highlight=False)
    console.print(summary(rows), highlight=False)
    console.print(OWN_NOTE, highlight=False)


def markdown(
    machine: dict[str, str], rows: Sequence[Row], notes: Sequence[str], command: str
) -> str:
    """The same as Markdown: a heading of the third level and the command for each table."""
    lines = [*(f"- {key}: {value}" for key, value in machine.items()), ""]
    for note in notes:
        lines += [note, ""]
    lines += [_escaped(summary(rows)), ""]
    if missed(rows):
        lines += ["Missed:", "", *(f"- {_escaped(line)}" for line in describe_misses(rows)), ""]
    for section, members in sections(rows).items():
        used = _used(members)
        lines += [f"### {section}", "", f"`{command}`", "", "| " + " | ".join(used) + " |"]
        lines.append("|" + "|".join("---:" if name in NUMERIC else "---" for name in used) + "|")
        for row in members:
            shown = dict(zip(HEADINGS, cells(row), strict=True))
            lines.append("| " + " | ".join(_escaped(shown[name]) for name in used) + " |")
        lines.append("")
    lines.append(_escaped(OWN_NOTE))
    return "\n".join(lines)


def as_dict(machine: dict[str, str], rows: Sequence[Row], notes: Sequence[str]) -> dict[str, Any]:
    """The same in types that JSON has."""
    judged = [row for row in rows if row.target]
    return {
        "machine": machine,
        "notes": list(notes),
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
        "judged": len(judged),
        "missed": describe_misses(rows),
    }


def _used(rows: Sequence[Row]) -> list[str]:
    """Headings of the columns in which any of the rows has something."""
    columns = zip(HEADINGS, zip(*map(cells, rows), strict=True), strict=True)
    return [heading for heading, column in columns if any(column)]


def _escaped(text: str) -> str:
    """So that Markdown shows the marks of rows instead of slanting what is between them."""
    return text.replace("*", "\\*")
