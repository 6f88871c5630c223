"""The scan on a GPU: its cost against a pure read, and the speed-up of batches. Else n/a.

GPU_CHECK_PAGES and GPU_CHECK_MAX_PAGES make the tables smaller, and GPU_CHECK_ITERATIONS the rounds
fewer, for a stand-in GPU.
"""

from __future__ import annotations

import functools
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

import morphogen as mg

from .rounds import median_ratio
from .scan import make_batch

if TYPE_CHECKING:
    from morphogen.engine.cuda import CudaEngine

PAGE_SIZE = 4_096
TABLES = {
    "65,536 pages": os.environ.get("GPU_CHECK_PAGES", "65536"),
    "all that fit": os.environ.get("GPU_CHECK_MAX_PAGES", "max"),
}
ROUNDS = int(os.environ.get("GPU_CHECK_ITERATIONS", "21"))

timeout = 300


# setup calls this, because there asv takes a NotImplementedError for n/a. The result is cached
# because asv sets up often.
@functools.cache
def open_table(name: str) -> CudaEngine:
    status = mg.driver_status()
    if not status.usable:
        raise NotImplementedError(f"no GPU can be used: {status.reason}")
    from morphogen.engine.cuda import CudaEngine

    device = next(device for device in status.devices if device.usable)
    # Leave a sixteenth for the driver and the engine's own buffers.
    most = device.memory // 16 * 15 // PAGE_SIZE
    num_pages = most if TABLES[name] == "max" else int(TABLES[name])
    # These are addresses without memory: the GPU makes the pages itself.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    unbacked = mmap.mmap(-1, num_pages * PAGE_SIZE, flags=flags, prot=mmap.PROT_READ)
    pages = np.frombuffer(unbacked, dtype=np.uint8).reshape(num_pages, PAGE_SIZE)
    return CudaEngine(mg.PageMatrix(pages), device.ordinal, generate=0)


class Scan:
    params = (["1 x 1", "1 x 3", "2 x 3"], list(TABLES))
    param_names = ("queries x keys", "table")

    def setup(self, shape: str, table: str) -> None:
        self.engine = open_table(table)

    def track_cost(self, shape: str, table: str) -> float:
        engine = self.engine
        batch = make_batch(engine.pages.num_pages, *map(int, shape.split(" x ")))
        return median_ratio(lambda: engine.answer(batch), engine.read_pages, ROUNDS)

    track_cost.unit = "x the time of a pure read"


class Speedup:
    params = ([2, 4, 8], list(TABLES))
    param_names = ("queries", "table")

    def setup(self, queries: int, table: str) -> None:
        self.engine = open_table(table)

    def track_speedup_over_single_loop(self, queries: int, table: str) -> float:
        engine = self.engine
        batch = make_batch(engine.pages.num_pages, queries, 3)
        return median_ratio(
            lambda: engine.answer(batch, max_micro_batch=1),
            lambda: engine.answer(batch),
            ROUNDS,
        )

    track_speedup_over_single_loop.unit = "x"
