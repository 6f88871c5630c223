"""Measure the host's time of a chunk on the GPU path, over a driver that does nothing.

    python tools/measure/host_time.py             prints a table
    python tools/measure/host_time.py --json      prints the same as JSON
    python tools/measure/host_time.py --check     exits with 1 if a median exceeds the target

The engine and the CUDA bindings are real. The driver is the stand-in of the tests, with kernels,
copies and waits switched off. The time from the call of `answer` to the launch, and to the answer,
is then the time that the library adds to the GPU's own.

Needs a C++ compiler and the extra `test`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import morphogen as mg

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "emulator"))

from standin_driver import LIBRARY, StandIn, build, other_driver

PAGE_SIZE = 4096
# Pages, queries of 3 keys in the chunk, whether the launch is replayed as a graph.
CASES = (
    *((65536, 1, False), (65536, 2, False), (1 << 18, 2, False), (65536, 2, True)),
    *((65536, 4, False), (65536, 8, False), (65536, 8, True)),
)
TABLE_BYTES = 2 << 30  # the stand-in's device has room for the largest
WARMUP = 500
CALLS = 10_000
TARGET_TO_LAUNCH = 10.0  # microseconds, of the median


@dataclass(frozen=True, slots=True)
class HostTime:
    """Microseconds: medians, and the quartiles and the 95th percentile of the time to the launch.

    Attributes
    ----------
    pages, queries : int
    graph : bool
        Whether the launch was replayed as a CUDA graph.
    to_launch, to_launch_25, to_launch_75, to_launch_95 : float
        From the call of ``answer`` to the driver's launch function.
    call : float
        The whole call.
    """

    pages: int
    queries: int
    graph: bool
    to_launch: float
    to_launch_25: float
    to_launch_75: float
    to_launch_95: float
    call: float


@contextmanager
def null_driver(directory: Path) -> Iterator[StandIn]:
    """Provide the stand-in, with one device of enough memory."""
    if other_driver():
        raise SystemExit(
            f"this process has loaded {other_driver()}: the stand-in cannot replace it"
        )
    with Console(stderr=True).status("Building the stand-in driver"):
        driver = StandIn(build(directory) / LIBRARY)
    driver.reset()
    driver.set(total_memory=TABLE_BYTES, free_memory=TABLE_BYTES)
    yield driver
    driver.set_null(False)


def measure(driver: StandIn, num_pages: int, queries: int, graph: bool = False) -> HostTime:
    """Time single calls of `answer` with a chunk each."""
    # The option is passed only if it is true: asv also measures commits that know no graphs.
    options: dict[str, Any] = {"graph": True} if graph else {}
    pages = mg.PageMatrix(np.zeros((num_pages, PAGE_SIZE), dtype=np.uint8))
    rows = np.random.default_rng(0).integers(num_pages, size=(queries, 3))
    batch, _ = mg.make_queries(rows, num_pages)
    width = queries if queries > mg.planner.DEFAULT_MICRO_BATCH else None
    times = np.empty((WARMUP + CALLS, 2))
    driver.set_null(True)  # the upload does nothing either
    with mg.open_engine(pages, device="cuda:0") as engine:
        for row in times:
            called = time.monotonic_ns()
            engine.answer(batch, max_micro_batch=width, **options)
            row[:] = driver.last_launch_ns() - called, time.monotonic_ns() - called
    driver.set_null(False)
    to_launch, call = times[WARMUP:].T / 1e3
    low, median, high, most = np.percentile(to_launch, (25, 50, 75, 95)).tolist()
    return HostTime(num_pages, queries, graph, median, low, high, most, float(np.median(call)))


def excesses(rows: list[HostTime]) -> list[str]:
    """Return the cases that take the host longer than the target."""
    return [
        f"{row.pages} pages, {row.queries} queries: {row.to_launch:.2f} us to the launch, "
        f"{TARGET_TO_LAUNCH:.0f} allowed"
        for row in rows
        if row.to_launch > TARGET_TO_LAUNCH
    ]


def print_table(rows: list[HostTime]) -> None:
    table = Table(
        "pages", "queries", "graph", "to launch", "95%", "call", title="Host time of a chunk, us"
    )
    for row in rows:
        figures = (row.to_launch, row.to_launch_95, row.call)
        kind = "replayed" if row.graph else ""
        table.add_row(
            str(row.pages), str(row.queries), kind, *(f"{figure:.2f}" for figure in figures)
        )
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the host's time of a chunk.")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--check", action="store_true", help="compare with the target")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, null_driver(Path(folder)) as driver:
        rows = [measure(driver, *case) for case in CASES]
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print_table(rows)
    found = excesses(rows) if options.check else []
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    from morphogen.cli.signals import cleaning_up  # not above: asv also measures older commits

    with cleaning_up():  # the stand-in driver
        sys.exit(main())
