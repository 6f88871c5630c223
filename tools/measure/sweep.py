"""Sizes of pages from 1 byte to 4 MiB, odd ones between: neighbours cost about the same a byte.

    python tools/measure/targets.py --only sweep --json > sweep.json
    python tools/measure/sweep.py sweep.json --plot sweep.svg

The first measures, also in pieces by `--page-sizes`, in about five minutes with all sizes. The
second judges and draws the sizes of all its files together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2] / "asv_bench"))

from benchmarks.rounds import interleave
from morphogen import PageMatrix, reconstruct
from morphogen.bench.describe import describe_size
from morphogen.bench.plot import check_plot
from morphogen.bench.workload import Pages, random_fetch
from morphogen.engine.cpu import CpuEngine
from passes import COSTS, MIB, cut
from rows import Row, show

Shape = tuple[int, int]
# The cost of a pass by its queries x keys, and by the size of a page.
Costs = dict[Shape, dict[int, float]]

# The borders of methods, layouts, registers and cache lines, and their neighbours. From 2 bytes on
# a size is at most 1.5 times that before it, or a cost that follows the size would be a cliff.
SIZES = (
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 63, 64, 65, 80, 100),
    *(127, 128, 129, 160, 192, 224, 255, 256, 257, 320, 400, 511, 512, 513, 640, 800, 1023, 1024),
    *(1025, 1500, 2047, 2048, 2049, 3000, 4095, 4096, 4097, 6000, 8191, 8192, 8193, 12000, 16384),
    *(16385, 24000, 32768, 48000, 65535, 65536, 65537, 96000, 131072, 192000, 262144, 384000),
    *(524288, 768000, MIB - 1, MIB, MIB + 1, 1500000, 2 * MIB, 3000000, 4 * MIB - 1, 4 * MIB),
)
NEIGHBOURS_COST = 1.6
# What must be the same in results that are judged together.
SAME = ("commit", "processor", "caches", "instruction set")


def sweep_rows(data: Pages, page_sizes: Iterable[int], rounds: int) -> Iterator[Row]:
    """Measure each size against a pure read of the same bytes, and compare neighbours."""
    costs: Costs = {shape: {} for shape in COSTS}
    for page_size in sorted(set(page_sizes)):
        for row in size_rows(data, page_size, rounds):
            add_cost(costs, row.section, row.what, row.value)
            yield row
    yield from neighbour_rows(costs)


def size_rows(data: Pages, page_size: int, rounds: int) -> Iterator[Row]:
    """Measure the passes over pages of one size by one thread."""
    table = cut(data, page_size)
    contenders: dict[str, Callable[[], object]] = {}
    with closing(CpuEngine(PageMatrix(table), threads=1)) as engine:
        contenders["read"] = engine.read_pages
        for shape in COSTS:
            fetch = random_fetch(len(table), *shape, seed=2)
            # A fast wrong answer is worth nothing.
            found = reconstruct(*map(engine.answer, fetch.queries))
            if not np.array_equal(found, table[fetch.indices]):
                sys.exit(f"pages of {page_size} bytes: the answers do not give the pages")
            contenders[str(shape)] = partial(engine.answer, fetch.queries[0])
        times = interleave(contenders, rounds)
    for queries, keys in COSTS:
        section = f"Page sizes, {queries} x {keys} over {describe_size(data.nbytes)}, one thread"
        cost = times[str((queries, keys))] / times["read"]
        yield Row.of(section, f"{page_size:,} bytes", cost, "x")


def add_cost(costs: Costs, section: str, what: str, value: float) -> None:
    """Add the figure of a row, if it is the cost of a size."""
    shape = re.match(r"Page sizes, (\d+) x (\d+) over ", section)
    if shape:
        page_size = int(what.removesuffix(" bytes").replace(",", ""))
        costs[int(shape[1]), int(shape[2])][page_size] = value


def neighbour_rows(costs: Costs) -> Iterator[Row]:
    """Compare the cost of each size with that of the next one."""
    for (queries, keys), by_size in costs.items():
        section = f"Neighbouring page sizes, {queries} x {keys}: the greater cost over the less"
        for low, high, ratio in neighbours(by_size):
            yield Row(section, f"{low:,} and {high:,} bytes", ratio, "x", NEIGHBOURS_COST)


def neighbours(by_size: dict[int, float]) -> list[tuple[int, int, float]]:
    """Return the pairs of neighbouring sizes, and how many times as much one costs as the other."""
    found = []
    for low, high in itertools.pairwise(sorted(by_size)):
        ratio = by_size[low] / by_size[high]
        found.append((low, high, max(ratio, 1 / ratio)))
    return found


def load(paths: Sequence[Path]) -> tuple[dict[str, str], Costs]:
    """Return what the results of several runs have in common, and the costs of all."""
    machine: dict[str, str] = {}
    costs: Costs = {shape: {} for shape in COSTS}
    for path in paths:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = result["machine"]
        machine = machine or found
        for name in SAME:
            if machine[name] != found[name]:
                sys.exit(f"{path}: {name} is {found[name]!r}, not {machine[name]!r}")
        machine = {name: text for name, text in machine.items() if found[name] == text}
        for row in result["rows"]:
            add_cost(costs, row["section"], row["what"], row["value"])
    if not any(costs.values()):
        sys.exit("no file has rows of the section sweep")
    return machine, costs


def draw(costs: Costs, path: Path) -> None:
    """Draw the costs by the size of a page, and mark where neighbours differ too much."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    # The words stay text, and the same figures give the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "morphogen"}):
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        axis = figure.subplots()
        colors = ("tab:blue", "tab:orange", "tab:green", "tab:purple")
        for ((queries, keys), by_size), color in zip(costs.items(), colors, strict=False):
            sizes = sorted(by_size)
            values = [by_size[size] for size in sizes]
            label = f"{queries} x {keys}"
            axis.plot(sizes, values, "o-", color=color, markersize=2.5, label=label)
        label = f"a cliff: neighbours {NEIGHBOURS_COST} times apart"
        for by_size in costs.values():
            for low, high, ratio in neighbours(by_size):
                if ratio > NEIGHBOURS_COST:
                    ends = [by_size[low], by_size[high]]
                    axis.plot([low, high], ends, color="red", linewidth=3, label=label)
                    label = "_once"  # matplotlib keeps such labels out of the legend
        axis.axhline(1, color="gray", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        ticks = [4**power for power in range(12)]
        axis.set_xticks(ticks, list(map(describe_size, ticks)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title("Queries x keys in one pass of one thread")
        axis.set_xlabel("size of a page")
        axis.set_ylabel("time of the pass / time of a pure read")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        # The date would make every file different.
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, metadata=metadata)


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge and draw results of the section sweep.")
    parser.add_argument("results", type=Path, nargs="+", help="of targets.py --only sweep --json")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a .svg or .png file")
    options = parser.parse_args()
    if options.plot:
        try:
            check_plot(options.plot)
        except (OSError, ValueError, ModuleNotFoundError) as error:
            parser.error(str(error))
    machine, costs = load(options.results)
    show(machine, list(neighbour_rows(costs)), [], Console())
    if options.plot:
        draw(costs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
