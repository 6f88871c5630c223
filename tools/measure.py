"""Measure every CPU row of the table of targets (docs/performance.md) on this machine.

    python tools/measure.py                                 prints the tables
    python tools/measure.py --markdown docs/performance.md  writes them between the file's markers
    python tools/measure.py --json                          prints JSON
    python tools/measure.py --strict                        exits with 1 where a target is missed

Where a figure is a ratio, both sides were measured in the same interleaved rounds: the ratio is
taken in each round, and the table has the median and the quartiles over the rounds. The rounds are
those of the asv suite (asv_bench/benchmarks/rounds.py). Medians withstand a little other load:
before trusting a verdict, see what the machine's description says of other programs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from machine_facts import ROOT, OtherPrograms, describe_machine
from marked_markdown import marked_file, write_marked
from measure_report import as_dict, markdown, missed, show
from measure_targets import (
    BATCH_SIZES,
    EXPAND_TARGETS,
    GEN_TARGET,
    IMPORT_TARGET,
    KEY_PAGES,
    LAUNCH_TARGET,
    NUM_PAGES,
    PACK_TARGET,
    PAGE_SIZE,
    PAGE_SIZES,
    SHAPES,
    THREADS,
    Row,
    Target,
    pass_target,
    speedup_target,
)
from morphogen import PageMatrix, dpf, planner
from morphogen.bench.describe import describe_size
from morphogen.bench.workload import (
    Pages,
    available_memory,
    naive_answer,
    random_pages,
    random_queries,
)
from morphogen.engine.cpu import CpuEngine

sys.path.insert(0, str(ROOT / "asv_bench"))

from benchmarks.naive import naive_numpy
from benchmarks.rounds import Seconds, Spread, interleave, take_turns

TOOL = Path(__file__).name


def open_engine(pages: Pages, threads: int) -> CpuEngine:
    return CpuEngine(PageMatrix(pages), threads=threads)


def check_answers(pages: Pages, threads: int) -> None:
    """A fast wrong answer is worth nothing."""
    queries = random_queries(len(pages), max(BATCH_SIZES), 3, seed=1)
    with closing(open_engine(pages, threads)) as engine:
        batch = engine.answer(queries).pages
        single = engine.answer(queries, max_micro_batch=1).pages
    if not np.array_equal(batch, single):
        sys.exit("the batch differs from the single-query loop")
    if not np.array_equal(batch[-1], naive_answer(pages, queries[-1])):
        sys.exit("the batch differs from the naive XOR of the pages")


def pass_rows(pages: Pages, threads: int, rounds: int, judged: bool) -> Iterator[Row]:
    """One pass for 1, 3 and 6 keys against a pure read of the same bytes."""
    num_pages, page_size = pages.shape

    def row(what: str, run: Seconds, base: Seconds | None, target: Target | None = None) -> Row:
        section = f"One pass against a pure read, threads: {threads}"
        ratio = None if base is None else Spread.of(run / base)
        return Row(section, what, Spread.of(run), ratio, target, page_size, threads)

    with closing(open_engine(pages, threads)) as engine:
        batches = {shape: random_queries(num_pages, *shape, seed=2) for shape in SHAPES}
        contenders: dict[str, Callable[[], object]] = {
            what: partial(engine.answer, batches[shape]) for shape, what in SHAPES.items()
        }
        times = interleave({"read": engine.read_pages, **contenders}, rounds)
        rate = pages.nbytes / float(np.median(times["read"])) / 1e9
        yield row(f"pure read ({rate:.1f} GB/s)", times["read"], None)
        for shape, what in SHAPES.items():
            target = pass_target(*shape, page_size, threads) if judged else None
            yield row(what, times[what], times["read"], target)
        if page_size == PAGE_SIZE and threads == 1:
            # In rounds of its own: it copies half of the table.
            key = batches[1, 1][0].keys[0]
            naive = partial(naive_numpy, pages, key)
            times = interleave({"read": engine.read_pages, "naive": naive}, rounds)
            yield row("naive numpy, 1 key", times["naive"], times["read"])


def speedup_rows(pages: Pages, threads: int, rounds: int, judged: bool) -> Iterator[Row]:
    """Batches against the single-query loop on the same keys.

    The loop runs over the largest batch once a round. What it takes for a smaller batch is its
    share of that.
    """
    num_pages, page_size = pages.shape
    section = f"Batch against single-query loop, threads: {threads}"
    largest = max(BATCH_SIZES)
    queries = random_queries(num_pages, largest, 3, seed=3)
    with closing(open_engine(pages, threads)) as engine:
        batches = {str(size): partial(engine.answer, queries[:size]) for size in BATCH_SIZES}
        loop = partial(engine.answer, queries, max_micro_batch=1)
        times = interleave({"loop": loop, **batches}, rounds)
    for size in BATCH_SIZES:
        batch = times[str(size)]
        yield Row(
            section,
            f"{size} queries x 3 keys",
            Spread.of(batch),
            Spread.of(times["loop"] * size / largest / batch),
            speedup_target(size, page_size, threads) if judged else None,
            page_size,
            threads,
        )


def key_rows(rounds: int) -> Iterator[Row]:
    """Keys, planning and packing: what is not a pass over the pages. One thread."""
    section = "Keys, and chunks of 2 queries x 3 keys, one thread"
    packer = planner.KeyPacker(KEY_PAGES)
    batches = {size: random_queries(KEY_PAGES, size, 3, seed=4) for size in (2, 32)}
    keys = {pages: dpf.gen(pages // 3, pages)[0] for pages in EXPAND_TARGETS}

    def plan_and_pack(size: int) -> None:
        planner.micro_batch_ranges(size)
        packer.pack(batches[size])

    times = interleave(
        {
            "gen": partial(dpf.gen, KEY_PAGES // 3, KEY_PAGES),
            **{f"expand {pages}": partial(dpf.eval_full, keys[pages], pages) for pages in keys},
            **{f"pack {size}": partial(plan_and_pack, size) for size in batches},
        },
        rounds,
    )
    for pages, target in EXPAND_TARGETS.items():
        what = f"expand key to 2^{pages.bit_length() - 1} bits"
        yield Row(section, what, Spread.of(times[f"expand {pages}"]), target=target)
    what = "key pair for 2^25 pages"
    yield Row(section, what, Spread.of(times["gen"]), target=GEN_TARGET)
    for size in batches:
        a_chunk = times[f"pack {size}"] / len(planner.micro_batch_ranges(size))
        what = f"plan, pack ({size} queries)"
        yield Row(section, what, Spread.of(a_chunk), target=PACK_TARGET)


def import_rows(rounds: int) -> Iterator[Row]:
    """Imports, each in a fresh interpreter, without the time to start that."""
    section = "Import, in a fresh interpreter"
    numpy, everything = "import numpy", "all public names"
    statements = {
        "import morphogen": "import morphogen",
        everything: "import morphogen\nfor name in morphogen.__all__: getattr(morphogen, name)",
        numpy: "import numpy",
    }

    def clock(statement: str) -> float:
        code = (
            "import sys, time\nstart = time.perf_counter()\n"
            f"{statement}\nprint(time.perf_counter() - start)\n"
            "if 'cuda' in sys.modules: sys.exit('CUDA was loaded')"
        )
        command = [sys.executable, "-c", code]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    clocks = {what: partial(clock, statement) for what, statement in statements.items()}
    take_turns(clocks, 1)  # to have the files in memory
    times = take_turns(clocks, rounds)
    for what in statements:
        target = IMPORT_TARGET if what == "import morphogen" else None
        if what == everything:
            ratio = Spread.of(times[what] / times[numpy])
            yield Row(section, f"{what} / numpy", Spread.of(times[what]), ratio)
        else:
            yield Row(section, what, Spread.of(times[what]), target=target)


class NotMeasuredError(Exception):
    """Why a section has no rows."""


def host_rows() -> Iterator[Row]:
    """Host time of the GPU path, in a process of its own: that loads a driver which does nothing.

    Raises
    ------
    NotMeasuredError
        Where there is no compiler or no GPU engine to measure it with.
    """
    command = [sys.executable, str(ROOT / "tools" / "host_time.py"), "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        why = (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]
        raise NotMeasuredError(f"Host time to a launch was not measured: {why}")
    section = "Host time from `answer` to the launch, over a driver that does nothing"
    for case in json.loads(run.stdout):
        replayed = ", replayed" if case["graph"] else ""
        what = f"{case['pages']:,} pages, a chunk of {case['queries']}{replayed}"
        spread = Spread(*(1e-6 * case[f"to_launch{end}"] for end in ("_25", "", "_75")))
        yield Row(section, what, spread, target=LAUNCH_TARGET)


def numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the CPU rows of the table of targets.")
    parser.add_argument("--threads", type=numbers, default=list(THREADS), metavar="T,...")
    parser.add_argument(
        "--pages",
        type=int,
        default=NUM_PAGES,
        help=f"4 KiB pages in the table; the targets of passes are for {NUM_PAGES}",
    )
    parser.add_argument(
        "--page-sizes",
        type=numbers,
        default=list(PAGE_SIZES),
        metavar="B,...",
        help="how to cut the table: all have the same total size",
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", type=marked_file(TOOL), metavar="FILE", help="written to it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 where a target is missed"
    )
    found = parser.parse_args(arguments)
    if found.rounds < 1:
        parser.error(f"--rounds must be 1 or more, not {found.rounds}")
    total = found.pages * PAGE_SIZE
    if found.pages < 1 or any(total % size for size in found.page_sizes):
        parser.error(
            f"--pages {found.pages} of {PAGE_SIZE} bytes must hold whole pages of every size in "
            f"--page-sizes, not {found.page_sizes}"
        )
    if 2 * total > available_memory():  # the naive numpy copies half of the table
        parser.error(
            f"--pages {found.pages} needs {describe_size(2 * total)} of memory, and only "
            f"{describe_size(available_memory())} are available"
        )
    return found


def measure(arguments: argparse.Namespace, notes: list[str]) -> Iterator[Row]:
    """All rows, section by section; notes get what could not be measured."""
    rounds, judged = arguments.rounds, arguments.pages == NUM_PAGES
    pages = random_pages(arguments.pages, PAGE_SIZE, seed=0)
    tables = [pages.reshape(-1, size) for size in arguments.page_sizes]
    for table in tables:
        check_answers(table, max(arguments.threads))
    for threads in arguments.threads:
        for table in tables:
            yield from pass_rows(table, threads, rounds, judged)
        for table in tables:
            yield from speedup_rows(table, threads, rounds, judged)
    yield from key_rows(rounds)
    try:
        yield from host_rows()
    except NotMeasuredError as why:
        notes.append(str(why))
    yield from import_rows(rounds)


def main() -> int:
    arguments = parse_arguments()
    others = OtherPrograms()
    notes = [
        f"{describe_size(arguments.pages * PAGE_SIZE)} of random pages. Medians of "
        f"{arguments.rounds} interleaved rounds; ratios are taken in each round. The quartiles are "
        "of the ratio, or of the time where there is no ratio."
    ]
    if arguments.pages != NUM_PAGES:
        notes.append(f"Passes are not judged: the targets are for {NUM_PAGES:,} x {PAGE_SIZE:,}.")
    tables = len(arguments.threads) * len(arguments.page_sizes)
    expected = tables * (1 + len(SHAPES) + len(BATCH_SIZES)) + 12
    rows = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("checking answers", total=expected)
        for row in measure(arguments, notes):
            rows.append(row)
            page = f", {row.page_size:,}-byte pages" if row.page_size else ""
            bar.update(task, completed=len(rows), description=f"{row.section}{page}")
        bar.update(task, completed=expected, description="measured")
    machine = describe_machine(others)
    if arguments.markdown:
        text = markdown(machine, rows, notes, f"python tools/{TOOL}")
        write_marked(arguments.markdown, TOOL, text)
    if arguments.json:
        print(json.dumps(as_dict(machine, rows, notes), indent=2))
    else:
        show(machine, rows, notes, Console())
    return 1 if arguments.strict and missed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
