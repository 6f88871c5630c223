"""Measure every CPU row of the table of targets (docs/performance.md) on this machine.

    python tools/measure.py                                 prints the table
    python tools/measure.py --markdown docs/performance.md  writes it between the file's two markers
    python tools/measure.py --json                          prints JSON

Where a figure is a ratio, both sides were measured in the same interleaved rounds: the ratio is
taken in each round, and the table has the median and the quartiles over the rounds. The rounds are
those of the asv suite (asv_bench/benchmarks/rounds.py). Medians withstand a little other load:
before trusting a verdict, see what the machine's description says of other programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import morphogen
from morphogen import PageMatrix, dpf, planner
from morphogen.engine.cpu import CpuEngine
from morphogen.workload import Pages, available_memory, naive_answer, random_pages, random_queries

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "asv_bench"))

from benchmarks.naive import naive_numpy
from benchmarks.rounds import Seconds, Spread, interleave, take_turns

# The table that the targets are for.
NUM_PAGES, PAGE_SIZE = 65_536, 4_096
KEY_PAGES = 2**25
BATCH_SIZES = (2, 4, 8, 16, 32)
SHAPES = {(1, 1): "1 query x 1 key", (1, 3): "1 query x 3 keys", (2, 3): "2 queries x 3 keys"}

BEGIN = "<!-- tools/measure.py writes from here -->"
END = "<!-- tools/measure.py writes to here -->"


@dataclass(frozen=True, slots=True)
class Target:
    """A limit, of a ratio where the row has one, else of the time in seconds."""

    limit: float
    text: str
    at_least: bool = False

    def verdict(self, value: float) -> str:
        met = value >= self.limit if self.at_least else value <= self.limit
        return "pass" if met else "FAIL"


@dataclass(frozen=True, slots=True)
class Row:
    section: str
    what: str
    seconds: Spread
    ratio: Spread | None = None
    target: Target | None = None

    @property
    def verdict(self) -> str:
        value = (self.ratio or self.seconds).median
        return self.target.verdict(value) if self.target else ""


PASS_TARGETS = {
    (1, 1): Target(1.10, "<= 1.10x"),
    (2, 3): Target(1.15, "<= 1.15x"),
}
SPEEDUP_TARGETS = {
    8: Target(6, ">= 6x", at_least=True),
    32: Target(10, ">= 10x", at_least=True),
}
# The times of the fastest peer, dpf-cpp, on a machine with AVX-512 that reads 13.7 GB/s a thread.
EXPAND_TARGETS = {
    2**16: Target(7.73e-6, "<= 7.73 us"),
    2**20: Target(112.9e-6, "<= 112.9 us"),
}
GEN_TARGET = Target(10e-6, "<= 10 us")
PACK_TARGET = Target(1e-6, "<= 1 us")
IMPORT_TARGET = Target(0.1, "<= 0.1 s")


def open_engine(pages: Pages, threads: int) -> CpuEngine:
    return CpuEngine(PageMatrix(pages), threads=threads)


def check_answers(pages: Pages) -> None:
    """A fast wrong answer is worth nothing."""
    queries = random_queries(len(pages), max(BATCH_SIZES), 3, seed=1)
    with closing(open_engine(pages, 2)) as engine:
        batch = engine.answer(queries).pages
        single = engine.answer(queries, max_micro_batch=1).pages
    if not np.array_equal(batch, single):
        sys.exit("the batch differs from the single-query loop")
    if not np.array_equal(batch[-1], naive_answer(pages, queries[-1])):
        sys.exit("the batch differs from the naive XOR of the pages")


def pass_rows(pages: Pages, threads: int, rounds: int) -> Iterator[Row]:
    """One pass for 1, 3 and 6 keys against a pure read of the same bytes."""
    num_pages, page_size = pages.shape
    section = f"One pass against a pure read: {page_size:,}-byte pages, threads: {threads}"
    hit = num_pages == NUM_PAGES and page_size == PAGE_SIZE and threads == 1
    with closing(open_engine(pages, threads)) as engine:
        batches = {shape: random_queries(num_pages, *shape, seed=2) for shape in SHAPES}
        contenders: dict[str, Callable[[], object]] = {
            str(shape): partial(engine.answer, queries) for shape, queries in batches.items()
        }
        times = interleave({"read": engine.read_pages, **contenders}, rounds)
        rate = pages.nbytes / float(np.median(times["read"])) / 1e9
        yield Row(section, f"pure read ({rate:.1f} GB/s)", Spread.of(times["read"]))
        for shape, what in SHAPES.items():
            target = PASS_TARGETS.get(shape) if hit else None
            yield ratio_row(section, what, times[str(shape)], times["read"], target)
        if page_size == PAGE_SIZE and threads == 1:
            # In rounds of its own: it copies half of the table.
            key = batches[1, 1][0].keys[0]
            times = interleave(
                {"read": engine.read_pages, "naive": partial(naive_numpy, pages, key)}, rounds
            )
            yield ratio_row(section, "naive numpy, 1 key", times["naive"], times["read"])


def speedup_rows(pages: Pages, threads: int, rounds: int) -> Iterator[Row]:
    """Batches against the single-query loop on the same keys."""
    num_pages, page_size = pages.shape
    section = f"Batch against single-query loop: {page_size:,}-byte pages, threads: {threads}"
    with closing(open_engine(pages, threads)) as engine:
        for size in BATCH_SIZES:
            queries = random_queries(num_pages, size, 3, seed=3)
            times = interleave(
                {
                    "single": partial(engine.answer, queries, max_micro_batch=1),
                    "batch": partial(engine.answer, queries),
                },
                rounds,
            )
            hit = num_pages == NUM_PAGES and threads == 1
            yield Row(
                section,
                f"{size} queries x 3 keys",
                Spread.of(times["batch"]),
                Spread.of(times["single"] / times["batch"]),
                SPEEDUP_TARGETS.get(size) if hit else None,
            )


def host_rows(rounds: int) -> Iterator[Row]:
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
            "if any('cuda' in name for name in sys.modules): sys.exit('CUDA was loaded')"
        )
        command = [sys.executable, "-c", code]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    clocks = {what: partial(clock, statement) for what, statement in statements.items()}
    take_turns(clocks, 1)  # to have the files in memory
    times = take_turns(clocks, rounds)
    for what in statements:
        target = IMPORT_TARGET if what == "import morphogen" else None
        if what == everything:
            yield ratio_row(section, f"{what} / numpy", times[what], times[numpy])
        else:
            yield Row(section, what, Spread.of(times[what]), target=target)


def ratio_row(
    section: str, what: str, run: Seconds, base: Seconds, target: Target | None = None
) -> Row:
    return Row(section, what, Spread.of(run), Spread.of(run / base), target)


def describe_machine(others: float) -> dict[str, str]:
    with closing(open_engine(np.zeros((1, 1), dtype=np.uint8), 1)) as engine:
        instruction_set = engine.instruction_set
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": cpu_model(),
        "cores": f"{os.cpu_count()}, of which {len(os.sched_getaffinity(0))} may be used",
        "instruction set": instruction_set,
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "morphogen": f"{morphogen.__version__}, built by {compiler()}",
        "other programs": f"{others:.0%} of the cores' time during the run",
    }


def core_seconds() -> tuple[float, float]:
    """Of all cores since the start of the machine: seconds in all, and those other programs had."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
    total, idle = sum(seconds), sum(seconds[3:5])
    own = os.times()
    return total, total - idle - sum(own[:4])


def cpu_model() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.*)$", text, re.M)
    return found[1] if found else platform.machine()


def compiler() -> str:
    """What compilers leave in the files they make, if nobody stripped it."""
    code = Path(planner.__file__).read_bytes()
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", code)
    return found[0].decode() if found else "an unknown compiler"


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, under `HEADINGS`."""
    units = ((1.0, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns"))
    scale, unit = next((u for u in units if row.seconds.median * u[0] >= 0.9995), units[-1])
    if row.ratio:
        ratio = f"{row.ratio.median:.2f}x"
        quartiles = f"{row.ratio.low:.2f} to {row.ratio.high:.2f}"
    else:
        ratio = ""
        quartiles = f"{row.seconds.low * scale:.3g} to {row.seconds.high * scale:.3g}"
    return (
        row.what,
        f"{row.seconds.median * scale:.3g} {unit}",
        ratio,
        quartiles,
        row.target.text if row.target else "",
        row.verdict,
    )


def sections(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.section, []).append(row)
    return found


HEADINGS = ("what", "time", "ratio", "quartiles", "target", "met")


def show(machine: dict[str, str], rows: list[Row], note: str, console: Console) -> None:
    for key, value in machine.items():
        console.print(f"{key:16}{value}", highlight=False)
    console.print(f"\n{note}", highlight=False)
    for section, members in sections(rows).items():
        table = Table(
            title=section,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),  # so that a terminal of 80 holds it
        )
        for heading in HEADINGS:
            numeric = heading in ("time", "ratio", "quartiles")
            table.add_column(heading, no_wrap=True, justify="right" if numeric else "left")
        for row in members:
            table.add_row(*cells(row), style="bold red" if row.verdict == "FAIL" else None)
        console.print(table)


def markdown(machine: dict[str, str], rows: list[Row], note: str) -> str:
    lines = [*(f"- {key}: {value}" for key, value in machine.items()), "", note, ""]
    for section, members in sections(rows).items():
        lines += [f"### {section}", "", "| " + " | ".join(HEADINGS) + " |"]
        lines.append("|---|---:|---:|---:|---|---|")
        lines += ["| " + " | ".join(cells(row)) + " |" for row in members]
        lines.append("")
    return "\n".join(lines)


def marked_file(path: str) -> Path:
    """A file to write between the two markers of; made if there is none."""
    file = Path(path)
    if not file.exists():
        file.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    if not re.search(f"{BEGIN}.*{END}", file.read_text(encoding="utf-8"), re.S):
        raise argparse.ArgumentTypeError(f"{path} lacks the lines {BEGIN} and {END}")
    return file


def write_markdown(file: Path, text: str) -> None:
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the CPU rows of the table of targets.")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="T,...")
    parser.add_argument(
        "--pages",
        type=int,
        default=NUM_PAGES,
        help=f"4 KiB pages in the table; the targets are for {NUM_PAGES}",
    )
    parser.add_argument(
        "--page-sizes",
        type=numbers,
        default=[32, 256, 1_024, 4_096, 65_536],
        metavar="B,...",
        help="tables of the same total size to pass over on the first number of threads",
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", type=marked_file, metavar="FILE", help="where to write it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    total = arguments.pages * PAGE_SIZE
    if arguments.pages < 1 or any(total % size for size in arguments.page_sizes):
        parser.error(f"{arguments.pages} x {PAGE_SIZE} bytes must hold whole pages of every size")
    if 2 * total > available_memory():  # the naive numpy copies half of the table
        parser.error(f"{arguments.pages} pages do not fit the memory twice")
    return arguments


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    rounds, threads = arguments.rounds, arguments.threads
    pages = random_pages(arguments.pages, PAGE_SIZE, seed=0)
    check_answers(pages)
    for number in threads:
        yield from pass_rows(pages, number, rounds)
        yield from speedup_rows(pages, number, rounds)
    for page_size in arguments.page_sizes:
        if page_size != PAGE_SIZE:
            yield from pass_rows(pages.reshape(-1, page_size), threads[0], rounds)
    yield from host_rows(rounds)
    yield from import_rows(rounds)


def main() -> None:
    arguments = parse_arguments()
    total_before, others_before = core_seconds()
    rows = []
    with Console(stderr=True).status("checking answers") as status:
        for row in measure(arguments):
            rows.append(row)
            status.update(f"after {row.section}: {row.what}")
    total, others = core_seconds()
    machine = describe_machine((others - others_before) / (total - total_before))
    note = (
        f"{arguments.pages * PAGE_SIZE >> 20:,} MiB of random pages. Medians of "
        f"{arguments.rounds} interleaved rounds; ratios are taken in each round. The quartiles are "
        "of the ratio, or of the time where there is no ratio."
    )
    if arguments.markdown:
        write_markdown(arguments.markdown, markdown(machine, rows, note))
    if arguments.json:
        listed = [asdict(row) | {"verdict": row.verdict} for row in rows]
        print(json.dumps({"machine": machine, "note": note, "rows": listed}, indent=2))
    else:
        show(machine, rows, note, Console())


if __name__ == "__main__":
    main()
