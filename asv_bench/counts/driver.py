"""Counts of a batch on the GPU path: launches, driver calls, allocations of Python.

They are counted over the stand-in driver, in a process that has loaded no other. No GPU is needed.
"""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.host import NUM_PAGES, PAGE_SIZE, open_driver, open_table
from benchmarks.scan import make_batch

from .compiled import load_python_library

CALLS = 100
QUERIES = (1, 2, 4, 8, 32)


def count_all() -> dict[str, dict[str, float]]:
    """Count one call of `answer`, by its number of queries."""
    driver = open_driver()
    with tempfile.TemporaryDirectory() as folder:
        counter = load_python_library("allocation_counter", Path(folder))
    found: dict[str, dict[str, float]] = {}
    with open_table() as engine:
        for queries in QUERIES:
            batch = make_batch(NUM_PAGES, queries, 3)
            out = np.empty((queries, 3, PAGE_SIZE), dtype=np.uint8)
            gc.collect()
            gc.disable()
            for _ in range(2):  # in the first round the interpreter fills its free lists
                before = driver.calls()
                counter.count_begin()
                for _ in range(CALLS):
                    engine.answer(batch, out=out)
                allocations = counter.count_end()
                calls = driver.calls() - before
            gc.enable()
            found[f"{queries} x 3"] = {
                "launches": calls["cuLaunchKernel"] / CALLS,
                "driver calls": calls.total() / CALLS,
                "allocations": round(allocations / CALLS, 1),
            }
    return found
