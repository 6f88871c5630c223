"""Figures of how cost grows, and the CSV file that keeps them."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "asv_bench"))

from benchmarks.rounds import Seconds, Spread

SECTIONS = ("pages", "threads", "batch", "page_size")
COLUMNS = (
    *("section", "page_size", "pages", "threads", "queries", "keys_per_query", "rounds"),
    *("ms_low", "ms_median", "ms_high", "ratio_low", "ratio_median", "ratio_high"),
)
KEYS_PER_QUERY = 3


@dataclass(frozen=True, slots=True)
class Point:
    """What one call cost: quartiles over the rounds.

    Attributes
    ----------
    section : str
        One of `SECTIONS`: what the measurement varies.
    page_size, pages, threads : int
        The table, and who reads it.
    queries : int
        In the batch; 0 for a pure read.
    rounds : int
    ms : Spread
        Milliseconds a call.
    ratio : Spread
        Times as long as the pure read of the same round.
    """

    section: str
    page_size: int
    pages: int
    threads: int
    queries: int
    rounds: int
    ms: Spread
    ratio: Spread

    @property
    def x(self) -> int:
        """What the section varies."""
        varied = {
            "pages": self.pages,
            "threads": self.threads,
            "batch": self.queries,
            "page_size": self.page_size,
        }
        return varied[self.section]


def point(
    section: str, table: tuple[int, int], threads: int, queries: int, run: Seconds, read: Seconds
) -> Point:
    """A point from the seconds of its rounds, and from those of the pure reads in them."""
    pages, page_size = table
    ms, ratio = Spread.of(1e3 * run), Spread.of(run / read)
    return Point(section, page_size, pages, threads, queries, len(run), ms, ratio)


def write_points(file: Path, facts: Mapping[str, str], points: Sequence[Point]) -> None:
    """Write all points, section by section, behind lines that say how each was measured.

    Parameters
    ----------
    file : Path
    facts : mapping of str to str
        For each section on what it was measured, in one line.
    points : sequence of Point
    """
    with file.open("w", encoding="utf-8", newline="") as stream:
        for section in SECTIONS:
            if section in facts:
                stream.write(f"# {section}: {facts[section]}\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for at in sorted(points, key=lambda at: SECTIONS.index(at.section)):
            spreads = (
                *(at.ms.low, at.ms.median, at.ms.high),
                *(at.ratio.low, at.ratio.median, at.ratio.high),
            )
            writer.writerow(
                (
                    *(at.section, at.page_size, at.pages, at.threads, at.queries),
                    *(KEYS_PER_QUERY if at.queries else 0, at.rounds),
                    *(f"{value:.5g}" for value in spreads),
                )
            )


def read_points(file: Path) -> tuple[dict[str, str], list[Point]]:
    """What `write_points` wrote.

    Raises
    ------
    ValueError
        With the line, if the file is anything else.
    """
    facts: dict[str, str] = {}
    lines = file.read_text(encoding="utf-8").splitlines()
    start = next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))
    for number, line in enumerate(lines[:start], start=1):
        section, colon, text = line.removeprefix("# ").partition(": ")
        if section not in SECTIONS or not colon:
            raise ValueError(f"{file}, line {number}: expected '# SECTION: FACTS', not {line!r}")
        facts[section] = text
    expected = ",".join(COLUMNS)
    if start == len(lines) or lines[start] != expected:
        found = lines[start] if start < len(lines) else "the end of the file"
        raise ValueError(f"{file}, line {start + 1}: expected {expected!r}, not {found!r}")
    points = []
    for number, row in enumerate(csv.reader(lines[start + 1 :]), start=start + 2):
        try:
            section, *counts = row[:7]
            page_size, pages, threads, queries, _, rounds = map(int, counts)
            values = [float(cell) for cell in row[7:]]
            at = Point(
                *(section, page_size, pages, threads, queries, rounds),
                Spread(*values[:3]),
                Spread(*values[3:]),
            )
            SECTIONS.index(section)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
        points.append(at)
    return facts, points
