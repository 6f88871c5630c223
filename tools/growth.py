"""Show how the cost of a pass grows with pages, threads, queries and the size of a page.

    python tools/growth.py                    measures, writes docs/benchmarks/growth_cpu.csv and
                                              draws docs/plots/growth_*.svg
    python tools/growth.py --only threads     measures and draws one section, keeps the others
    python tools/growth.py --from-csv FILE    draws, and measures nothing

All figures of a point were taken in the same interleaved rounds (asv_bench/benchmarks/rounds.py),
beside a pure read of the same pages by the same threads. Needs the extra `plot`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from growth_plots import save_plots
from growth_points import (
    KEYS_PER_QUERY,
    SECTIONS,
    Point,
    point,
    read_points,
    write_points,
)
from machine_facts import ROOT, OtherPrograms, describe_machine
from morphogen import PageMatrix
from morphogen.bench.describe import describe_size
from morphogen.bench.workload import Pages, available_memory, random_pages, random_queries
from morphogen.engine.cpu import MAX_THREADS, CpuEngine

sys.path.insert(0, str(ROOT / "asv_bench"))

from benchmarks.rounds import interleave

CSV = ROOT / "docs" / "benchmarks" / "growth_cpu.csv"
PLOTS = ROOT / "docs" / "plots"

FEWEST_PAGES, MOST_PAGES = 2**10, 2**22
GROWN_PAGE_SIZES = (256, 4_096)
PAGE_SIZE = 4_096
SMALLEST_PAGE, LARGEST_PAGE = 16, 2**20
# Of the memory that is available: what Python and the system need besides is not much.
USABLE_MEMORY = 0.9


@dataclass(frozen=True, slots=True)
class Case:
    """One engine over one table, and the batches that it answers in turn with a pure read."""

    section: str
    pages: int
    page_size: int
    threads: int
    batches: tuple[int, ...]

    @property
    def table_bytes(self) -> int:
        return self.pages * self.page_size

    @property
    def memory(self) -> int:
        """Bytes: the table, the answer, and every thread's sums for it."""
        return self.table_bytes + (1 + self.threads) * self.page_size * KEYS_PER_QUERY * max(
            self.batches
        )

    def describe(self) -> str:
        return f"{self.section}: {self.pages:,} pages of {self.page_size:,} bytes"


def powers(first: int, last: int) -> Iterator[int]:
    """First, twice that, and so on, up to last."""
    while first <= last:
        yield first
        first *= 2


def batch_sizes(width: int) -> tuple[int, ...]:
    """1 to twice the engine's width, and 64 at least: powers of two and what lies between."""
    last = max(64, 2 * width)
    return tuple(sorted({*powers(1, last), *powers(3, last), width, width + 1}))


def plan(sections: Sequence[str], total: int, largest: int, threads: int) -> list[Case]:
    """What to measure.

    Parameters
    ----------
    sections : sequence of str
    total : int
        Bytes of the tables whose size does not grow.
    largest : int
        Bytes that no table exceeds.
    threads : int
        In sections other than "threads".
    """
    with closing(CpuEngine(PageMatrix(np.zeros((1, 1), dtype=np.uint8)), threads=1)) as engine:
        width = engine.max_micro_batch
    few = (1, 2, 8, width)
    cores = len(os.sched_getaffinity(0))
    fixed = total // PAGE_SIZE
    cases = {
        "pages": [
            Case("pages", pages, size, threads, few)
            for size in GROWN_PAGE_SIZES
            for pages in powers(FEWEST_PAGES, min(MOST_PAGES, largest // size))
        ],
        # Twice and four times as many threads as cores: what a wrong setting costs.
        "threads": [
            Case("threads", fixed, PAGE_SIZE, count, few)
            for count in (*range(1, cores + 1), 2 * cores, 4 * cores)
        ],
        "batch": [Case("batch", fixed, PAGE_SIZE, threads, batch_sizes(width))],
        "page_size": [
            Case("page_size", total // size, size, threads, few)
            for size in powers(SMALLEST_PAGE, min(LARGEST_PAGE, total))
        ],
    }
    return [case for section in SECTIONS if section in sections for case in cases[section]]


def within_memory(cases: Sequence[Case], available: int) -> tuple[list[Case], list[Case]]:
    """The cases that fit this many bytes, and those that do not."""
    limit = USABLE_MEMORY * available
    fit = [case for case in cases if case.memory <= limit]
    return fit, [case for case in cases if case.memory > limit]


def measure(case: Case, buffer: Pages, rounds: int) -> list[Point]:
    """The points of a case, over the first bytes of the buffer."""
    table = buffer[: case.table_bytes].reshape(case.pages, case.page_size)
    queries = random_queries(case.pages, max(case.batches), KEYS_PER_QUERY, seed=1)
    with closing(CpuEngine(PageMatrix(table), threads=case.threads)) as engine:
        # A fast wrong answer is worth nothing.
        last = engine.answer(queries[-1:]).pages[0]
        if not np.array_equal(engine.answer(queries).pages[-1], last):
            sys.exit(f"{case.describe()}: the batch differs from the single query")
        runs = {str(size): partial(engine.answer, queries[:size]) for size in case.batches}
        times = interleave({"0": engine.read_pages, **runs}, rounds)
    shape = (case.pages, case.page_size)
    return [
        point(case.section, shape, case.threads, int(size), run, times["0"])
        for size, run in times.items()
    ]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Show how the cost of a pass grows.")
    parser.add_argument("--only", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="except where they are what grows")
    parser.add_argument("--total", type=int, default=256, metavar="MIB", help="of other tables")
    parser.add_argument("--largest", type=int, default=1024, metavar="MIB", help="of any table")
    parser.add_argument("--csv", type=Path, default=CSV, metavar="FILE", help="to write")
    parser.add_argument("--plots", type=Path, default=PLOTS, metavar="FOLDER", help="to draw in")
    parser.add_argument("--from-csv", type=Path, metavar="FILE", help="draw this, measure nothing")
    found = parser.parse_args(arguments)
    for name, most in (("rounds", 10_000), ("threads", MAX_THREADS), ("total", 1 << 20)):
        if not 1 <= getattr(found, name) <= most:
            parser.error(f"--{name} must be in 1..{most}, not {getattr(found, name)}")
    if found.largest < found.total:
        parser.error(f"--largest must be --total ({found.total}) or more, not {found.largest}")
    if found.from_csv and found.only:
        parser.error("--from-csv draws all that the file has: it takes no --only")
    if found.from_csv and not found.from_csv.is_file():
        parser.error(f"--from-csv {found.from_csv}: there is no such file")
    return found


def measure_all(
    cases: Sequence[Case], left_out: Sequence[Case], rounds: int
) -> tuple[dict[str, str], list[Point]]:
    """What each section was measured on, and its points."""
    others = OtherPrograms()
    points: list[Point] = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("making pages", total=sum(case.memory for case in cases))
        buffer = random_pages(1, max(case.table_bytes for case in cases), seed=0)[0]
        for case in cases:
            bar.update(task, description=case.describe())
            points += measure(case, buffer, rounds)
            bar.advance(task, case.memory)
    machine = "; ".join(f"{name}: {value}" for name, value in describe_machine(others).items())
    facts = {case.section: machine for case in cases}
    for section in dict.fromkeys(case.section for case in left_out):
        missing = ", ".join(
            f"{case.pages} x {case.page_size}" for case in left_out if case.section == section
        )
        facts[section] = f"{machine}; left out for lack of memory: {missing}"
    return facts, points


def main() -> int:
    arguments = parse_arguments()
    console = Console(stderr=True)
    if arguments.from_csv:
        try:
            _, points = read_points(arguments.from_csv)
        except ValueError as error:
            console.print(str(error), style="bold red", highlight=False)
            return 2
    else:
        sections = [arguments.only] if arguments.only else list(SECTIONS)
        mib = 1 << 20
        cases = plan(sections, arguments.total * mib, arguments.largest * mib, arguments.threads)
        available = available_memory()
        cases, left_out = within_memory(cases, available)
        for case in left_out:
            console.print(
                f"left out, {describe_size(available)} of memory available: {case.describe()} "
                f"needs {describe_size(case.memory)}",
                highlight=False,
            )
        if not cases:
            console.print("nothing fits the memory", style="bold red")
            return 1
        facts, points = measure_all(cases, left_out, arguments.rounds)
        if arguments.only and arguments.csv.exists():
            old_facts, old_points = read_points(arguments.csv)
            facts = {**old_facts, **facts}
            points += [at for at in old_points if at.section != arguments.only]
        arguments.csv.parent.mkdir(parents=True, exist_ok=True)
        write_points(arguments.csv, facts, points)
        console.print(f"wrote {arguments.csv}", highlight=False, soft_wrap=True)
    arguments.plots.mkdir(parents=True, exist_ok=True)
    for file in save_plots(points, arguments.plots):
        console.print(f"drew {file}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
