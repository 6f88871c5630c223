"""Show where the time of a pass goes, for the CPU rows of the table of targets that miss.

    python tools/scan_profile.py                                 profiles the rows that miss
    python tools/scan_profile.py --all                           and those that meet their target
    python tools/scan_profile.py --shape 65536x4096 --queries 8  profiles one table and batch
    python tools/scan_profile.py --markdown docs/performance.md  writes between the file's markers
    python tools/scan_profile.py --functions                     adds samples by source function

All times are processor time, of a thread on average, so that other programs that take a core for a
while do not count; the ratio that is judged is one of times by the wall's clock in the same
interleaved rounds, as in tools/measure.py. Short parts have more rounds, of their own.

- read: a pure read of the same bytes by as many threads.
- trees: `dpf.eval_full` of every key, shared among the threads.
- scan: the same scan over pages that lie in the second-level cache, where memory costs nothing. It
  is what a few pages more add to a call, without their share of the trees, for as many pages as the
  table has, shared among the threads.
- call: what is left of a call over those few pages: planning, packing, clearing sums, the answer.

A pass reads while it computes, so that it cannot take less than the read, nor less than trees, scan
and call together. What it takes beyond the larger of the two is time in which they did not overlap.

`--functions` samples with `perf` and needs a build with symbols and line numbers:
`pip install -Cinstall.strip=false -Ccmake.define.CMAKE_CXX_FLAGS=-g .`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from machine_facts import ROOT, OtherPrograms, cache_bytes, describe_machine
from marked_markdown import marked_file, write_marked
from measure_targets import (
    NUM_PAGES,
    PAGE_SIZE,
    PAGE_SIZES,
    THREADS,
    Target,
    pass_target,
    speedup_target,
)
from morphogen import PageMatrix, dpf, instruction_set
from morphogen.bench.describe import describe_size
from morphogen.bench.workload import Pages, available_memory, random_pages, random_queries
from morphogen.engine.cpu import CpuEngine
from scan_parts import Case, Profile
from scan_report import as_dict, markdown, show
from scan_samples import NoSamplesError, sample

sys.path.insert(0, str(ROOT / "asv_bench"))

from benchmarks.rounds import Seconds, take_turns

TOOL = Path(__file__).name
# The rows with a target: queries and keys of one pass, or a batch against the single-query loop.
JUDGED = ((1, 1), (2, 3), (8, 3), (32, 3))
DEFAULT_CACHE = 1 << 20  # where the system does not say how large the second level is
LEAF_PAGES = 512  # that one leaf of a key covers
SHORT_SECONDS = 1e-3  # what a round of a short part fills with calls
SHORT_ROUNDS = 5  # of milliseconds for one of a pass: their differences are small
TILE_PAGES = 32  # the most pages that the scan takes side by side


def target_of(case: Case) -> Target | None:
    """The target of a case, if the table of targets has one."""
    if case.pages * case.page_size != NUM_PAGES * PAGE_SIZE or case.instruction_set is not None:
        return None
    if case.queries > 2 and case.keys == 3:
        return speedup_target(case.queries, case.page_size, case.threads)
    return pass_target(case.queries, case.keys, case.page_size, case.threads)


def small_pages(page_size: int) -> int:
    """Pages so few that twice as many leave most of the second-level cache to the sums."""
    pages = (cache_bytes(2) or DEFAULT_CACHE) // 8 // page_size
    return max(TILE_PAGES, pages // LEAF_PAGES * LEAF_PAGES or pages)


class Stopwatch:
    """Times calls as `take_turns` wants it: processor seconds of a thread; keeps the wall's, too.

    Parameters
    ----------
    run : callable
    threads : int
        That share the work. The processor time is that of all, divided by their number: waiting for
        the slowest is not in it.
    """

    def __init__(self, run: Callable[[], object], threads: int = 1) -> None:
        self._run = run
        self._threads = threads
        self._wall: list[float] = []
        self._calls = 1
        while self() * self._calls < SHORT_SECONDS:
            self._calls *= 2
        self._wall.clear()

    def __call__(self) -> float:
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(self._calls):
            self._run()
        processor = time.process_time() - processor
        self._wall.append((time.perf_counter() - wall) / self._calls)
        return processor / self._calls / self._threads

    @property
    def wall(self) -> Seconds:
        """Seconds of each call after the warm-up, by the wall's clock."""
        return np.array(self._wall)


def profile(case: Case, table: Pages, rounds: int) -> Profile:
    """Measure a case and its parts."""
    few = min(small_pages(case.page_size), max(1, case.pages // 2))
    queries = random_queries(case.pages, case.queries, case.keys, seed=5)
    name = case.instruction_set

    def engine(pages: int, threads: int) -> CpuEngine:
        return CpuEngine(PageMatrix(table[:pages]), threads=threads, instruction_set=name)

    def expand(pages: int, keys: Sequence[bytes]) -> None:
        for key in keys:
            dpf.eval_full(key, pages, instruction_set=name)

    with (
        closing(engine(case.pages, case.threads)) as whole,
        closing(engine(few, 1)) as small,
        closing(engine(2 * few, 1)) as double,
    ):
        if case.queries > whole.max_micro_batch:
            raise ValueError(
                f"--queries must be in 1..{whole.max_micro_batch}, one pass, not {case.queries}"
            )
        counts = {"trees": case.pages, "small trees": few, "double trees": 2 * few}
        batches = {
            what: random_queries(pages, case.queries, case.keys, seed=5)
            for what, pages in counts.items()
        }
        keys = {what: [k for query in batch for k in query.keys] for what, batch in batches.items()}
        passes = {
            "pass": Stopwatch(partial(whole.answer, queries), case.threads),
            "read": Stopwatch(whole.read_pages, case.threads),
        }
        if case.queries > 2:
            single = partial(whole.answer, queries[:1])
            passes["single"] = Stopwatch(single, case.threads)
        parts = {
            "small": Stopwatch(partial(small.answer, batches["small trees"])),
            "double": Stopwatch(partial(double.answer, batches["double trees"])),
            **{what: Stopwatch(partial(expand, counts[what], keys[what])) for what in counts},
        }
        times = {**take_turns(passes, rounds), **take_turns(parts, SHORT_ROUNDS * rounds)}
    wall = {what: watch.wall for what, watch in passes.items()}
    if "single" in wall:
        ratios = case.queries * wall["single"] / wall["pass"]
    else:
        ratios = wall["pass"] / wall["read"]
    return Profile.of(case, times, few, float(np.median(ratios)), target_of(case))


def cases(arguments: argparse.Namespace) -> list[Case]:
    """What to profile: one case, or every row of the table of targets."""
    if arguments.shape is None:
        return [
            Case(NUM_PAGES * PAGE_SIZE // size, size, *batch, threads)
            for threads in THREADS
            for batch in JUDGED
            for size in PAGE_SIZES
        ]
    pages, page_size = arguments.shape
    return [
        Case(
            *(pages, page_size, arguments.queries, arguments.keys, arguments.threads),
            arguments.instruction_set,
        )
    ]


def profiles(chosen: Sequence[Case], rounds: int) -> Iterator[Profile]:
    """All of them, over one buffer of random pages."""
    total = max(case.pages * case.page_size for case in chosen)
    buffer = random_pages(1, total, seed=0)[0]
    for case in chosen:
        table = buffer[: case.pages * case.page_size].reshape(case.pages, case.page_size)
        yield profile(case, table, rounds)


def shape(text: str) -> tuple[int, int]:
    pages, _, page_size = text.partition("x")
    if int(pages) < 2 or int(page_size) < 1:  # half of the pages is a table, too
        raise ValueError(text)
    return int(pages), int(page_size)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Show where the time of a pass goes.")
    parser.add_argument("--shape", type=shape, metavar="PAGESxBYTES", help="one table only")
    parser.add_argument("--queries", type=int, help="of one pass over that table; 1 if not given")
    parser.add_argument("--keys", type=int, choices=(1, 2, 3), help="a query; 3 if not given")
    parser.add_argument("--threads", type=int, help="1 if not given")
    parser.add_argument("--instruction-set", choices=instruction_set.supported())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--all", action="store_true", help="rows that meet their target, too")
    parser.add_argument("--functions", action="store_true", help="samples by source function")
    parser.add_argument("--markdown", type=marked_file(TOOL), metavar="FILE", help="written to it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    found = parser.parse_args(arguments)
    one_case = {"queries": 1, "keys": 3, "threads": 1, "instruction_set": None}
    for name, default in one_case.items():
        value = getattr(found, name)
        if found.shape is None and value is not None:
            parser.error(f"--{name.replace('_', '-')} goes with --shape, and none is given")
        if value is None:
            setattr(found, name, default)
        elif name in ("queries", "threads") and value < 1:
            parser.error(f"--{name} must be 1 or more, not {value}")
    if found.rounds < 1:
        parser.error(f"--rounds must be 1 or more, not {found.rounds}")
    pages, page_size = found.shape or (NUM_PAGES, PAGE_SIZE)
    if pages * page_size > available_memory() // 2:
        parser.error(
            f"the table needs {describe_size(pages * page_size)}, and only "
            f"{describe_size(available_memory())} of memory are available"
        )
    return found


def main() -> int:
    arguments = parse_arguments()
    console = Console(stderr=True)
    others = OtherPrograms()
    chosen = cases(arguments)
    found = []
    try:
        with Progress(console=console) as bar:
            task = bar.add_task("making pages", total=len(chosen))
            for at in profiles(chosen, arguments.rounds):
                found.append(at)
                bar.update(task, advance=1, description=at.case.describe())
        judged = len(found)
        if arguments.shape is None and not arguments.all:
            found = [at for at in found if not at.met]
        samples = []
        if arguments.functions:
            with console.status("sampling"):
                samples = [sample(at.case) for at in found]
    except (ValueError, NoSamplesError) as error:
        console.print(str(error), style="bold red", highlight=False, soft_wrap=True)
        return 2
    machine = describe_machine(others)
    notes = [f"Medians of {arguments.rounds} interleaved rounds."]
    if arguments.shape is None:
        notes.append(f"{judged} rows have a target, {sum(not at.met for at in found)} miss it.")
    if arguments.markdown:
        text = markdown(machine, found, samples, notes, f"python tools/{TOOL}")
        write_marked(arguments.markdown, TOOL, text)
    if arguments.json:
        print(json.dumps(as_dict(machine, found, samples, notes), indent=2))
    else:
        show(machine, found, samples, notes, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
