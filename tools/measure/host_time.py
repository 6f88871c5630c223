"""Measure the host's time of a chunk on the GPU path, over a driver that does nothing.

    python tools/measure/host_time.py     prints JSON, for the section `host` of targets.py

The engine and the CUDA bindings are real. The driver is the stand-in of the tests, with kernels,
copies and waits switched off. The time from the call of `answer` to the launch, and to the answer,
is then the time that the library adds to the GPU's own.

Needs a C++ compiler and the extra `test`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

import morphogen as mg
from morphogen.cli.signals import cleaning_up

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


@dataclass(frozen=True, slots=True)
class HostTime:
    """Microseconds: medians, and the quartiles of the time to the launch.

    Attributes
    ----------
    pages, queries : int
    graph : bool
        Whether the launch was replayed as a CUDA graph.
    to_launch, to_launch_25, to_launch_75 : float
        From the call of ``answer`` to the driver's launch function.
    """

    pages: int
    queries: int
    graph: bool
    to_launch: float
    to_launch_25: float
    to_launch_75: float


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
    pages = mg.PageMatrix(np.zeros((num_pages, PAGE_SIZE), dtype=np.uint8))
    rows = np.random.default_rng(0).integers(num_pages, size=(queries, 3))
    batch, _ = mg.make_queries(rows, num_pages)
    width = queries if queries > mg.planner.DEFAULT_MICRO_BATCH else None
    times = np.empty(WARMUP + CALLS)
    driver.set_null(True)  # the upload does nothing either
    with mg.open_engine(pages, device="cuda:0") as engine:
        for at in range(len(times)):
            called = time.monotonic_ns()
            engine.answer(batch, max_micro_batch=width, graph=graph)
            times[at] = driver.last_launch_ns() - called
    driver.set_null(False)
    low, median, high = np.percentile(times[WARMUP:] / 1e3, (25, 50, 75)).tolist()
    return HostTime(num_pages, queries, graph, median, low, high)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, null_driver(Path(folder)) as driver:
        rows = [measure(driver, *case) for case in CASES]
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    with cleaning_up():  # the stand-in driver
        main()
