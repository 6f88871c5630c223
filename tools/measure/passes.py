"""Passes of the CPU engine: their cost against a pure read, threads, memory, a busy core."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.rounds import Spread, interleave
from morphogen import PageMatrix, Query
from morphogen.bench.workload import Pages, naive_answer, random_queries
from morphogen.engine.cpu import CpuEngine
from rows import NotMeasuredError, Row

MIB = 1 << 20
# The limits hold for a table that is larger than every cache.
TABLE_BYTES = 256 * MIB
PAGE_SIZES = (
    *(1, 2, 4, 8, 16, 20, 24, 32, 48, 64, 100, 256, 1024, 4096, 16384, 65536, MIB, 4 * MIB),
)
THREADS = (1, 2)
# The most times that a pass for queries x keys may take as long as a pure read, by the least page
# size.
COSTS = {
    (1, 1): {1: 2.5, 4: 1.6, 16: 1.3},
    (2, 3): {1: 5.0, 16: 1.4},
    (8, 3): {1: 4.0, 64: 2.0},
    (32, 3): {1: 10.0, 64: 5.0},
}
# The same for 65,536 pages of 4 KiB on one thread.
SHARPEST_COSTS = {(1, 1): 1.10, (2, 3): 1.15, (8, 3): 1.25, (32, 3): 1.8}
THREADS_SPEEDUP = 1.8
BUSY_CORE_COST = 0.75
EXTRA_BYTES = 64 * MIB


def cost_limit(shape: tuple[int, int], page_size: int, threads: int) -> float:
    """Return how many times as long as a pure read a pass for queries x keys may take."""
    if (page_size, threads) == (4096, 1):
        return SHARPEST_COSTS[shape]
    return next(limit for least, limit in reversed(COSTS[shape].items()) if page_size >= least)


def cut(data: Pages, page_size: int) -> Pages:
    """Return the data as whole pages, without the rest."""
    count = data.size // page_size
    return data.reshape(-1)[: count * page_size].reshape(count, page_size)


def check_answer(engine: CpuEngine, table: Pages, batch: list[Query]) -> None:
    """Check an answer: a fast wrong one is worth nothing."""
    if not np.array_equal(engine.answer(batch).pages[-1], naive_answer(table, batch[-1])):
        sys.exit(f"pages of {table.shape[1]} bytes: the answer is not the XOR of the pages")


def pass_rows(data: Pages, page_size: int, threads: Sequence[int], rounds: int) -> Iterator[Row]:
    """Measure every number of threads and every batch over one table, in the same rounds."""
    section = f"Pages of {page_size:,} bytes: queries x keys against a pure read"
    table, judged = cut(data, page_size), data.nbytes == TABLE_BYTES
    batches = {shape: random_queries(len(table), *shape, seed=2) for shape in COSTS}
    pages = PageMatrix(table)
    with ExitStack() as stack:
        engines = {
            count: stack.enter_context(closing(CpuEngine(pages, threads=count)))
            for count in threads
        }
        for engine in engines.values():
            check_answer(engine, table, batches[max(COSTS)])
        contenders: dict[str, Callable[[], object]] = {}
        for count, engine in engines.items():
            contenders[f"{count} read"] = engine.read_pages
            for shape, batch in batches.items():
                contenders[f"{count} {shape}"] = partial(engine.answer, batch)
        times = interleave(contenders, rounds)
    for count in threads:
        read = times[f"{count} read"]
        rate = table.nbytes / float(np.median(read)) / 1e9
        yield Row.of(section, f"pure read, threads: {count} ({rate:.1f} GB/s)", read, "s")
        for shape in COSTS:
            limit = cost_limit(shape, page_size, count) if judged else None
            what = f"{shape[0]} x {shape[1]}, threads: {count}"
            yield Row.of(section, what, times[f"{count} {shape}"] / read, "x", limit)
    if set(THREADS) <= set(threads):
        gains = [Spread.of(times[f"1 {shape}"] / times[f"2 {shape}"]).median for shape in COSTS]
        limit = THREADS_SPEEDUP if judged else None
        yield Row(section, "2 threads against 1, the least gain", min(gains), "x", limit, True)
    with closing(CpuEngine(pages, threads=max(threads))) as fresh:
        extra = extra_memory(fresh, batches[32, 3], page_size)
    limit = EXTRA_BYTES if judged else None
    yield Row(section, "memory of a pass for 32 x 3", extra, "bytes", limit)


def extra_memory(engine: CpuEngine, batch: list[Query], page_size: int) -> int:
    """Return the most bytes of this process during an answer, beyond those before it."""
    out = np.ones((len(batch), len(batch[0].keys), page_size), dtype=np.uint8)
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed before would hide new memory
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # this forgets the peak
    before = memory("VmRSS")
    engine.answer(batch, out=out)
    return memory("VmHWM") - before


def memory(field: str) -> int:
    """Return a number of bytes that /proc tells of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(
        int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(field)
    )


def busy_core_rows(data: Pages, rounds: int) -> Iterator[Row]:
    """Measure two threads against one while another program keeps a core busy."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise NotMeasuredError("Beside a busy core nothing was measured: there is one core.")
    pages = PageMatrix(cut(data, 4096))
    batch = random_queries(pages.num_pages, 2, 3, seed=2)
    with closing(CpuEngine(pages, threads=1)) as one, closing(CpuEngine(pages, threads=2)) as two:
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            os.sched_setaffinity(other.pid, cores[-1:])
            contenders = {"one": partial(one.answer, batch), "two": partial(two.answer, batch)}
            times = interleave(contenders, rounds)
        finally:
            other.kill()
            other.wait()
    limit = BUSY_CORE_COST if data.nbytes == TABLE_BYTES else None
    what = "2 x 3 keys, 2 threads against 1, pages of 4,096 bytes"
    yield Row.of("Another program on one core", what, times["two"] / times["one"], "x", limit)
