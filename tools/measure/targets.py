"""Measure what the design sets targets for on this machine: the CPU engine and the host.

    python tools/measure/targets.py             prints tables
    python tools/measure/targets.py --json      prints JSON
    python tools/measure/targets.py --strict    exits with 1 if a target is missed or not measured
    python tools/measure/targets.py --only keys,imports

A ratio is taken within interleaved rounds (asv_bench/benchmarks/rounds.py), and the tables have the
median and the quartiles over the rounds. Medians withstand a little other load: the description of
the machine says how much there was. All sections take about twenty minutes and 4 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

sys.path.append(str(Path(__file__).resolve().parents[2] / "asv_bench"))

from benchmarks.rounds import interleave, take_turns
from lookups import lookup_rows
from machine_facts import ROOT, OtherPrograms, describe_machine
from morphogen import dpf, planner
from morphogen.bench.describe import describe_size
from morphogen.bench.workload import available_memory, random_pages, random_queries
from morphogen.cli.signals import cleaning_up
from morphogen.query import make_query
from passes import MIB, PAGE_SIZES, TABLE_BYTES, THREADS, busy_core_rows, pass_rows
from reloads import reload_rows
from rows import NotMeasuredError, Row, as_dict, show
from sweep import SIZES, sweep_rows
from table_builds import BUILD_ROWS, build_rows, update_rows
from trees import tree_rows

KEY_PAGES = 2**25
# Seconds. Of 2^20 bits: the fastest peer's, dpf-cpp, on a machine that reads 13.7 GB/s a thread.
EXPAND_SECONDS = {2**9: 0.5e-6, 2**16: 4e-6, 2**20: 112.9e-6}
GEN_SECONDS = 3e-6
PACK_SECONDS = 1e-6
LAUNCH_SECONDS = 10e-6
IMPORT_SECONDS = 0.1


def all_pass_rows(options: argparse.Namespace) -> Iterator[Row]:
    data = random_pages(options.mib, MIB, seed=0)
    for page_size in options.page_sizes or PAGE_SIZES:
        yield from pass_rows(data, page_size, options.threads, options.rounds)


def all_sizes_rows(options: argparse.Namespace) -> Iterator[Row]:
    # There are many sizes, and their targets are far from what rounds differ by.
    rounds = -(-options.rounds // 3)
    yield from sweep_rows(
        random_pages(options.mib, MIB, seed=0), options.page_sizes or SIZES, rounds
    )


def busy_rows(options: argparse.Namespace) -> Iterator[Row]:
    yield from busy_core_rows(random_pages(options.mib, MIB, seed=0), options.rounds)


def key_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Keys, planning and packing: what is not a pass over the pages. One thread."""
    section = "Keys, and chunks of 2 queries x 3 keys, one thread"
    packer = planner.KeyPacker(KEY_PAGES)
    batches = {size: random_queries(KEY_PAGES, size, 3, seed=4) for size in (2, 32)}
    keys = {pages: dpf.gen(pages // 3, pages)[0] for pages in EXPAND_SECONDS}

    def plan_and_pack(size: int) -> None:
        planner.micro_batch_ranges(size)
        packer.pack(batches[size])

    times = interleave(
        {
            "gen": partial(dpf.gen, KEY_PAGES // 3, KEY_PAGES),
            "query": partial(make_query, [KEY_PAGES // 3, 0, KEY_PAGES - 1], KEY_PAGES),
            **{f"expand {pages}": partial(dpf.eval_full, keys[pages], pages) for pages in keys},
            **{f"pack {size}": partial(plan_and_pack, size) for size in batches},
        },
        options.rounds,
    )
    for pages, limit in EXPAND_SECONDS.items():
        what = f"expand a key to 2^{pages.bit_length() - 1} bits"
        what += " (a leaf: the call)" if pages == 2**9 else ""
        yield Row.of(section, what, times[f"expand {pages}"], "s", limit)
    yield Row.of(section, "a key pair for 2^25 pages", times["gen"], "s", GEN_SECONDS)
    yield Row.of(section, "a query's 3 key pairs", times["query"], "s", 3 * GEN_SECONDS)
    for size in batches:
        a_chunk = times[f"pack {size}"] / len(planner.micro_batch_ranges(size))
        yield Row.of(section, f"plan and pack a chunk of {size}", a_chunk, "s", PACK_SECONDS)


def host_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Host time of the GPU path, in a process of its own: that loads a driver which does nothing.

    Raises
    ------
    NotMeasuredError
        If there is no compiler or no GPU engine to measure it with.
    """
    command = [sys.executable, str(ROOT / "tools" / "measure" / "host_time.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        why = (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]
        raise NotMeasuredError(f"Host time to a launch was not measured: {why}")
    section = "Host time from `answer` to the launch, over a driver that does nothing"
    for case in json.loads(run.stdout):
        replayed = ", replayed" if case["graph"] else ""
        what = f"{case['pages']:,} pages, a chunk of {case['queries']}{replayed}"
        low, median, high = (1e-6 * case[f"to_launch{end}"] for end in ("_25", "", "_75"))
        yield Row(section, what, median, "s", LAUNCH_SECONDS, low=low, high=high)


def import_rows(options: argparse.Namespace) -> Iterator[Row]:
    """The import in a fresh interpreter, without the time to start that."""
    code = (
        "import sys, time\nstart = time.perf_counter()\n"
        "import morphogen\nprint(time.perf_counter() - start)\n"
        "if any('cuda' in name for name in sys.modules): sys.exit('CUDA was loaded')"
    )

    def clock() -> float:
        command = [sys.executable, "-c", code]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    take_turns({"import": clock}, 1)  # to have the files in memory
    times = take_turns({"import": clock}, options.rounds)["import"]
    yield Row.of("Import, in a fresh interpreter", "import morphogen", times, "s", IMPORT_SECONDS)


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "passes": all_pass_rows,
    "sweep": all_sizes_rows,
    "busy": busy_rows,
    "keys": key_rows,
    "host": host_rows,
    "imports": import_rows,
    "lookups": lambda options: lookup_rows(options.rounds),
    "build": lambda options: build_rows(options.build_rows),
    "update": lambda options: update_rows(options.build_rows),
    "trees": lambda options: tree_rows(options.mib, options.rounds),
    "reloads": lambda options: reload_rows(options.mib, options.rounds),
}


def numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


def names(text: str) -> list[str]:
    found = text.split(",")
    if not set(found) <= SECTIONS.keys():
        raise argparse.ArgumentTypeError(f"sections are {', '.join(SECTIONS)}, not {text!r}")
    return found


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what the design sets targets for.")
    parser.add_argument(
        "--only", type=names, default=list(SECTIONS), metavar="SECTION,...", help="of these alone"
    )
    parser.add_argument("--threads", type=numbers, default=list(THREADS), metavar="T,...")
    parser.add_argument(
        "--page-sizes", type=numbers, metavar="B,...", help="of passes and of the sweep"
    )
    parser.add_argument(
        "--mib", type=int, default=TABLE_BYTES // MIB, help="size of the table of passes"
    )
    parser.add_argument("--build-rows", type=int, default=BUILD_ROWS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a target is missed or not measured"
    )
    found = parser.parse_args(arguments)
    if min(found.rounds, found.mib, found.build_rows) < 1:
        parser.error("--rounds, --mib and --build-rows must be 1 or more")
    if not {"passes", "sweep", "busy"} & set(found.only):
        return found
    largest = max(found.page_sizes or SIZES)
    if largest > found.mib * MIB:
        parser.error(f"a table of {found.mib} MiB holds no page of {largest} bytes")
    # The table, and of 4 MiB pages the answers and sums of 96 keys.
    needed = found.mib * MIB + 300 * largest
    if needed > available_memory():
        parser.error(
            f"{describe_size(needed)} of memory are needed, and "
            f"{describe_size(available_memory())} are available"
        )
    return found


def measure(options: argparse.Namespace, notes: list[str]) -> Iterator[Row]:
    """All rows, section by section; notes get what could not be measured."""
    for name in options.only:
        try:
            yield from SECTIONS[name](options)
        except NotMeasuredError as why:
            notes.append(str(why))


def main() -> int:
    options = parse_arguments()
    others = OtherPrograms()
    notes: list[str] = []
    if options.mib * MIB != TABLE_BYTES and {"passes", "busy"} & set(options.only):
        notes.append(f"Passes are not judged: their targets are for {TABLE_BYTES // MIB} MiB.")
    rows = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("measuring", total=None)
        for row in measure(options, notes):
            rows.append(row)
            bar.update(task, description=row.section)
    machine = describe_machine(others)
    if options.json:
        print(json.dumps(as_dict(machine, rows, notes), indent=2))
    else:
        show(machine, rows, notes, Console())
    # A note says what was not measured or not judged, which meets no target.
    return 1 if options.strict and (notes or any(row.missed for row in rows)) else 0


if __name__ == "__main__":
    with cleaning_up():  # temporary files and servers
        sys.exit(main())
