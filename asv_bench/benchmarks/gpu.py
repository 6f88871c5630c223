"""The scan on a GPU: speed-ups of batches, ratios to a pure read. Not applicable without a GPU.

GPU_CHECK_PAGES and GPU_CHECK_MAX_PAGES make the tables smaller where the GPU is a stand-in.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from morphogen import PageMatrix, driver_status
from morphogen.bench.workload import random_queries, unbacked_pages
from morphogen.query import Query

from .rounds import median_ratio

if TYPE_CHECKING:
    from morphogen.engine.cuda import CudaEngine

PAGE_SIZE = 4_096
TABLES = {
    "65,536 pages": os.environ.get("GPU_CHECK_PAGES", "65536"),
    "all that fit": os.environ.get("GPU_CHECK_MAX_PAGES", "max"),
}
ROUNDS = 21

timeout = 300


# Cached, because asv sets up anew before every call that it times.
@functools.cache
def open_table(name: str) -> CudaEngine:
    status = driver_status()
    if not status.usable:
        raise NotImplementedError(f"no GPU can be used: {status.reason}")
    from morphogen.bench.config import most_pages
    from morphogen.engine.cuda import CudaEngine

    ordinal = next(device.ordinal for device in status.devices if device.usable)
    count = TABLES[name]
    num_pages = most_pages(f"cuda:{ordinal}", PAGE_SIZE) if count == "max" else int(count)
    return CudaEngine(PageMatrix(unbacked_pages(num_pages, PAGE_SIZE)), ordinal, generate=0)


def make_batch(engine: CudaEngine, queries: int, keys: int) -> list[Query]:
    return random_queries(engine.pages.num_pages, queries, keys, seed=1)


class Answer:
    params = (["1 x 1", "1 x 3", "2 x 3"], list(TABLES))
    param_names = ("queries x keys", "table")

    def setup(self, shape: str, table: str) -> None:
        self.engine = open_table(table)
        self.batch = make_batch(self.engine, *map(int, shape.split(" x ")))

    def time_answer(self, shape: str, table: str) -> None:
        self.engine.answer(self.batch)

    def track_ratio_to_read(self, shape: str, table: str) -> float:
        return median_ratio(
            lambda: self.engine.answer(self.batch), self.engine.read_pages, rounds=ROUNDS
        )

    track_ratio_to_read.unit = "x the time of a pure read"


class Speedup:
    params = ([2, 4, 8], list(TABLES))
    param_names = ("queries", "table")

    def setup(self, queries: int, table: str) -> None:
        self.engine = open_table(table)
        self.batch = make_batch(self.engine, queries, 3)

    def track_speedup_over_single_loop(self, queries: int, table: str) -> float:
        return median_ratio(
            lambda: self.engine.answer(self.batch, max_micro_batch=1),
            lambda: self.engine.answer(self.batch),
            rounds=ROUNDS,
        )

    track_speedup_over_single_loop.unit = "x"
