"""The scan of 256 MiB of pages: times, ratios to a pure read, speed-ups of batches.

MORPHOGEN_BENCH_PAGES makes the table smaller, where it only matters that all runs.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from morphogen import PageMatrix
from morphogen.bench.workload import Pages, random_pages, random_queries
from morphogen.engine.cpu import CpuEngine
from morphogen.query import Query

from .naive import naive_numpy
from .rounds import median_ratio

NUM_PAGES, PAGE_SIZE = int(os.environ.get("MORPHOGEN_BENCH_PAGES", "65536")), 4_096
PAGES_FILE = "pages.bin"
# Two commits can be compared only on the same one: tools/gate.py sets it. Else: the widest.
INSTRUCTION_SET = os.environ.get("MORPHOGEN_BENCH_INSTRUCTION_SET")

timeout = 300


def setup_cache() -> None:
    # Once for all benchmarks of this module, each of which runs in a process of its own. asv gives
    # them one working directory, and removes it.
    random_pages(NUM_PAGES, PAGE_SIZE, seed=0).tofile(PAGES_FILE)


setup_cache.timeout = timeout


# Cached, because asv sets up anew before every call that it times.
@functools.cache
def load_pages(page_size: int) -> Pages:
    if not Path(PAGES_FILE).exists():
        setup_cache()
    return np.fromfile(PAGES_FILE, dtype=np.uint8).reshape(-1, page_size)


@functools.cache
def open_table(page_size: int, threads: int) -> CpuEngine:
    if threads > len(os.sched_getaffinity(0)):
        raise NotImplementedError(f"this machine has fewer than {threads} cores")
    pages = PageMatrix(load_pages(page_size))
    return CpuEngine(pages, threads=threads, instruction_set=INSTRUCTION_SET)


@functools.cache
def make_batch(num_pages: int, queries: int, keys: int) -> list[Query]:
    return random_queries(num_pages, queries, keys, seed=1)


class Answer:
    params = (["1 x 1", "1 x 3", "2 x 3", "4 x 3", "8 x 3", "16 x 3", "32 x 3"], [1, 2])
    param_names = ("queries x keys", "threads")

    def setup(self, shape: str, threads: int) -> None:
        queries, keys = map(int, shape.split(" x "))
        self.engine = open_table(PAGE_SIZE, threads)
        self.batch = make_batch(NUM_PAGES, queries, keys)

    def time_answer(self, shape: str, threads: int) -> None:
        self.engine.answer(self.batch)

    def track_ratio_to_read(self, shape: str, threads: int) -> float:
        return median_ratio(
            lambda: self.engine.answer(self.batch), self.engine.read_pages, rounds=15
        )

    track_ratio_to_read.unit = "x the time of a pure read"


class Speedup:
    params = ([2, 4, 8, 16, 32], [1, 2])
    param_names = ("queries", "threads")

    def setup(self, queries: int, threads: int) -> None:
        self.engine = open_table(PAGE_SIZE, threads)
        self.batch = make_batch(NUM_PAGES, queries, 3)

    def track_speedup_over_single_loop(self, queries: int, threads: int) -> float:
        return median_ratio(
            lambda: self.engine.answer(self.batch, max_micro_batch=1),
            lambda: self.engine.answer(self.batch),
            rounds=9,
        )

    track_speedup_over_single_loop.unit = "x"


class NaiveNumpy:
    def setup(self) -> None:
        self.engine = open_table(PAGE_SIZE, 1)
        self.batch = make_batch(NUM_PAGES, 1, 1)

    def naive(self) -> None:
        naive_numpy(load_pages(PAGE_SIZE), self.batch[0].keys[0])

    def track_naive_numpy_ratio_to_read(self) -> float:
        return median_ratio(self.naive, self.engine.read_pages, rounds=9)

    track_naive_numpy_ratio_to_read.unit = "x the time of a pure read"

    def track_naive_numpy_ratio(self) -> float:
        return median_ratio(self.naive, lambda: self.engine.answer(self.batch), rounds=9)

    track_naive_numpy_ratio.unit = "x the time of answer()"


class PageSize:
    params = ([32, 256, 1_024, 65_536], ["1 x 1", "1 x 3", "2 x 3"])
    param_names = ("page size", "queries x keys")

    def setup(self, page_size: int, shape: str) -> None:
        queries, keys = map(int, shape.split(" x "))
        self.engine = open_table(page_size, 1)
        self.batch = make_batch(self.engine.pages.num_pages, queries, keys)

    def track_ratio_to_read(self, page_size: int, shape: str) -> float:
        return median_ratio(
            lambda: self.engine.answer(self.batch), self.engine.read_pages, rounds=15
        )

    track_ratio_to_read.unit = "x the time of a pure read"
