"""What the host does for a batch on the GPU path: driver calls, launches, allocations, time.

No GPU is needed: see standin.py. The times go from `answer()` over a driver that does nothing, as
tools/measure/host_time.py takes them.
"""

from __future__ import annotations

import functools
import gc
import sys
from pathlib import Path

import numpy as np

from morphogen import PageMatrix, open_engine
from morphogen.bench.workload import random_queries
from morphogen.engine.base import Engine

from .compiled import load_python_library
from .standin import NUM_PAGES, PAGE_SIZE, open_driver

CALLS = 100

timeout = 300


@functools.cache
def open_table() -> Engine:
    open_driver().set_null(True)
    pages = PageMatrix(np.zeros((NUM_PAGES, PAGE_SIZE), dtype=np.uint8))
    return open_engine(pages, device="cuda:0")


class Calls:
    params = (1, 2, 4, 8, 32)
    param_names = ("queries",)

    def setup(self, queries: int) -> None:
        self.driver = open_driver()
        self.engine = open_table()
        self.batch = random_queries(NUM_PAGES, queries, 3, seed=1)
        # Filled, lest pages that the system gives only when written count.
        self.out = np.ones((queries, 3, PAGE_SIZE), dtype=np.uint8)
        for _ in range(3):
            self.engine.answer(self.batch, out=self.out)

    def time_answer(self, queries: int) -> None:
        self.engine.answer(self.batch)

    def calls(self) -> dict[str, int]:
        before = self.driver.calls()
        for _ in range(CALLS):
            self.engine.answer(self.batch)
        return {name: n for name, n in (self.driver.calls() - before).items() if n}

    def track_launches_a_call(self, queries: int) -> float:
        return self.calls().get("cuLaunchKernel", 0) / CALLS

    track_launches_a_call.unit = "launches"

    def track_driver_calls_a_call(self, queries: int) -> float:
        return sum(self.calls().values()) / CALLS

    track_driver_calls_a_call.unit = "driver calls"

    def track_allocations_a_call(self, queries: int) -> float:
        """What Python's allocators are asked for, the answer's own objects included."""
        counter = load_python_library("allocation_counter", Path.cwd())
        answer, batch, out = self.engine.answer, self.batch, self.out
        gc.collect()
        gc.disable()
        for _ in range(2):  # the first time, the interpreter fills its free lists
            counter.count_begin()
            for _ in range(CALLS):
                answer(batch, out=out)
            counted = counter.count_end()
        gc.enable()
        return counted / CALLS

    track_allocations_a_call.unit = "allocations"

    def track_blocks_kept(self, queries: int) -> int:
        """Blocks of memory that Python holds after many calls, and did not hold before."""
        for _ in range(2):  # the first time, the interpreter fills caches of its own
            before = sys.getallocatedblocks()
            for _ in range(10 * CALLS):
                self.engine.answer(self.batch, out=self.out)
            kept = sys.getallocatedblocks() - before
        return kept

    track_blocks_kept.unit = f"blocks in {10 * CALLS} calls"


class HostTime:
    params = ([65_536, 1 << 18], [1, 2])
    param_names = ("pages", "queries")

    def setup(self, pages: int, queries: int) -> None:
        self.driver = open_driver()

    def track_time_to_launch(self, pages: int, queries: int) -> float:
        import host_time

        self.driver.set(total_memory=host_time.TABLE_BYTES, free_memory=host_time.TABLE_BYTES)
        return host_time.measure(self.driver, pages, queries).to_launch

    track_time_to_launch.unit = "us"
