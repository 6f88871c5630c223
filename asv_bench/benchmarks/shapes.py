"""Passes over pages that are not 4 KiB: narrow, odd and wide ones. For the dashboard.

The costs are as those of `scan`. They take a minute or two, so CI does not compare them.
"""

from __future__ import annotations

from .scan import cost_of_answer, need_cores

timeout = 300


class Shapes:
    params = ([1, 8, 20, 100, 1 << 20], ["1 x 1", "8 x 3"], [1, 2])
    param_names = ("page size", "queries x keys", "threads")

    def setup(self, page_size: int, shape: str, threads: int) -> None:
        need_cores(threads)

    def track_cost(self, page_size: int, shape: str, threads: int) -> float:
        return cost_of_answer(page_size, shape, threads, rounds=9)

    track_cost.unit = "x the time of a pure read"
