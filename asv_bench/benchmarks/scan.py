"""The scan of 256 MiB of pages on the CPU: its cost, and the speed-up of batches.

A cost is the time of an answer divided by that of a pure read of the same bytes by numpy on one
thread. Less is better, and two threads should cost about half of one. The speed-up is for the
chart.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

import morphogen as mg

from .rounds import median_ratio

Pages = npt.NDArray[np.uint8]

# A test sets fewer bytes, if it only checks that all benchmarks run.
TABLE_BYTES = int(os.environ.get("MORPHOGEN_BENCH_BYTES", 1 << 28))

timeout = 300


def need_cores(threads: int) -> None:
    """Skip a benchmark in setup, where asv takes a NotImplementedError for n/a."""
    if threads > len(os.sched_getaffinity(0)):
        raise NotImplementedError(f"this machine has fewer than {threads} cores")


def open_table(page_size: int, threads: int) -> tuple[mg.Engine, Pages]:
    # The pages are written, or the system would map one page of zeros everywhere.
    pages = np.ones((TABLE_BYTES // page_size, page_size), dtype=np.uint8)
    return mg.open_engine(mg.PageMatrix(pages), device="cpu", threads=threads), pages


def make_batch(num_pages: int, queries: int, keys: int) -> list[mg.Query]:
    indices = np.random.default_rng(1).integers(num_pages, size=(queries, keys))
    return mg.make_queries(indices, num_pages)[0]


def cost_of_answer(page_size: int, shape: str, threads: int, rounds: int = 31) -> float:
    engine, pages = open_table(page_size, threads)
    batch = make_batch(len(pages), *map(int, shape.split(" x ")))
    flat = pages.reshape(-1)
    # Odd pages may end within a word.
    read = flat[: flat.size // 8 * 8].view(np.int64).sum
    return median_ratio(lambda: engine.answer(batch), read, rounds)


class Scan:
    params = (["1 x 1", "2 x 3", "8 x 3", "32 x 3"], [1, 2])
    param_names = ("queries x keys", "threads")

    def setup(self, shape: str, threads: int) -> None:
        need_cores(threads)

    def track_cost(self, shape: str, threads: int) -> float:
        return cost_of_answer(4_096, shape, threads)

    track_cost.unit = "x the time of a pure read"


class PageSize:
    params = ([32, 256, 65_536],)
    param_names = ("page size",)

    def track_cost_of_2_queries(self, page_size: int) -> float:
        return cost_of_answer(page_size, "2 x 3", threads=1)

    track_cost_of_2_queries.unit = "x the time of a pure read"


class Speedup:
    params = ([2, 4, 8], [1, 2])
    param_names = ("queries", "threads")

    def setup(self, queries: int, threads: int) -> None:
        need_cores(threads)

    def track_speedup_over_single_loop(self, queries: int, threads: int) -> float:
        engine, pages = open_table(4_096, threads)
        batch = make_batch(len(pages), queries, 3)
        return median_ratio(
            lambda: engine.answer(batch, max_micro_batch=1),
            lambda: engine.answer(batch),
            rounds=9,
        )

    track_speedup_over_single_loop.unit = "x"
