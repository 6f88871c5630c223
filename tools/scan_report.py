"""Profiles of passes as tables for people, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from machine_facts import cache_bytes
from measure_report import describe_seconds
from scan_parts import Profile
from scan_samples import Samples

HEADINGS = (
    *("page", "threads", "queries x keys", "ratio", "target"),
    *("pass", "read", "trees", "scan", "call", "rest", "outcome"),
)
_NUMERIC = ("page", "threads", "ratio", "pass", "read", "trees", "scan", "call", "rest")
NOTE = (
    "Processor time of a thread in ms, and percent of the pass. It reads while it computes: read "
    "and work (trees, scan, call) overlap, and rest is what the pass takes beyond the larger of "
    "the two. A part of work is measured over pages in the cache or without pages, and scaled."
)


def cells(profile: Profile) -> tuple[str, ...]:
    """A profile in words, under `HEADINGS`."""
    case = profile.case

    def share(seconds: float) -> str:
        return f"{1e3 * seconds:.2f} ({seconds / profile.whole:.0%})"

    return (
        f"{case.page_size:,}",
        str(case.threads),
        f"{case.queries} x {case.keys}",
        f"{profile.ratio:.2f}x",
        profile.target.text if profile.target else "",
        f"{1e3 * profile.whole:.2f}",
        *(share(seconds) for name, seconds in profile.parts.items() if name != "pass"),
        profile.outcome,
    )


def _notes(profiles: Sequence[Profile], notes: Sequence[str]) -> list[str]:
    """With what must be said of the small tables, where they do not fit the cache."""
    half = cache_bytes(2) // 2  # the sums need room, too
    sizes = sorted({at.case.page_size for at in profiles if 0 < half < at.small_bytes})
    names = ", ".join(f"{size:,}" for size in sizes)
    too_large = f"Pages of {names} bytes were scanned in part from the third-level cache."
    return [*notes, NOTE, *([too_large] if sizes else [])]


def show(
    machine: dict[str, str],
    profiles: Sequence[Profile],
    samples: Sequence[Samples],
    notes: Sequence[str],
    console: Console,
) -> None:
    """Print a table for each profile: what, time, share of the pass."""
    for key, value in machine.items():
        console.print(f"{key:16}{value}", highlight=False)
    for profile in profiles:
        target = f", wanted {profile.target.text}" if profile.target else ""
        console.print(f"\n{profile.case.describe()}", style="bold", highlight=False)
        console.print(f"{profile.ratio:.2f}x{target}: {profile.outcome}", highlight=False)
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("what")
        table.add_column("time", justify="right")
        table.add_column("share", justify="right")
        for name, seconds in profile.parts.items():
            sign = "-" if seconds < 0 else ""
            table.add_row(
                name, sign + describe_seconds(abs(seconds)), f"{seconds / profile.whole:.0%}"
            )
        console.print(table)
    for sampled in samples:
        console.print(f"\n{sampled.what}", style="bold", highlight=False)
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("function", overflow="fold")
        table.add_column("share", justify="right")
        for name, share in sampled.shares.items():
            table.add_row(name, f"{share:.1%}")
        console.print(table)
    for note in _notes(profiles, notes):
        console.print(note, highlight=False)


def markdown(
    machine: dict[str, str],
    profiles: Sequence[Profile],
    samples: Sequence[Samples],
    notes: Sequence[str],
    command: str,
) -> str:
    """One table of all profiles, and one of their samples."""
    lines = [*(f"- {key}: {value}" for key, value in machine.items()), ""]
    lines += [" ".join(_notes(profiles, notes)), ""]
    if profiles:
        lines += [f"`{command}`", "", "| " + " | ".join(HEADINGS) + " |"]
        lines.append("|" + "|".join("---:" if h in _NUMERIC else "---" for h in HEADINGS) + "|")
        lines += ["| " + " | ".join(cells(profile)) + " |" for profile in profiles]
        lines.append("")
    if samples:
        lines += [f"`{command} --functions`", "", "| pass | samples by source function |"]
        lines.append("|---|---|")
        for sampled in samples:
            shares = (f"`{name}` {share:.0%}" for name, share in sampled.shares.items())
            lines.append(f"| {sampled.what} | {', '.join(shares)} |")
        lines.append("")
    return "\n".join(lines)


def as_dict(
    machine: dict[str, str],
    profiles: Sequence[Profile],
    samples: Sequence[Samples],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The same in types that JSON has: seconds."""
    return {
        "machine": machine,
        "notes": list(notes),
        "profiles": [
            asdict(at) | {"parts": at.parts, "met": at.met, "outcome": at.outcome}
            for at in profiles
        ],
        "samples": [asdict(sampled) for sampled in samples],
    }
