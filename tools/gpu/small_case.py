"""A little of everything that a GPU does here, for compute-sanitizer, under which it is slow.

    python tools/gpu/small_case.py --seconds 45     begins no further table after so long
    python tools/gpu/small_case.py --profile 65536  a few launches over so many pages, for ncu

Exits with 1 if an answer differs from the CPU engine's.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import morphogen as mg
from morphogen.bench.workload import random_pages, random_queries, unbacked_pages
from morphogen.engine.cuda import CudaEngine
from morphogen.engine.cuda.variants import fitting

# Pages and bytes a page. They cover padding, a tail of a block, several tiles of columns and
# several leaves.
SHAPES = ((300, 4096), (600, 48), (1100, 1000), (70, 1), (130, 8208))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--profile", type=int, metavar="PAGES")
    options = parser.parse_args()
    if options.profile is not None:
        profile(options.profile)
        return 0
    return check(time.monotonic() + options.seconds)


def profile(num_pages: int) -> None:
    """Launch the read, the kernels for 1 to 24 keys, their variants, and those for wide chunks."""
    pages = mg.PageMatrix(unbacked_pages(num_pages, 4096))
    ordinal = next(one.ordinal for one in mg.driver_status().devices if one.usable)
    with CudaEngine(pages, ordinal, generate=1) as engine:
        engine.read_pages()
        for queries, keys in ((1, 1), (1, 3), (2, 3), (4, 3), (8, 3)):
            batch = random_queries(num_pages, queries, keys, seed=1)
            for _ in range(2):
                engine.answer(batch, max_micro_batch=queries)
        for variant in fitting(mg.driver_status().devices[ordinal].compute_capability):
            queries = 2 if 6 in variant.keys else 4
            batch = random_queries(num_pages, queries, 3, seed=1)
            engine.answer(batch, max_micro_batch=queries, variant=variant.name)
    with CudaEngine(pages, ordinal, generate=1, layout="bits") as engine:
        for queries in (8, 16, 32):
            batch = random_queries(num_pages, queries, 3, seed=1)
            for _ in range(2):
                engine.answer(batch, max_micro_batch=queries)


def check(until: float) -> int:
    wrong = done = 0
    for num_pages, page_size in SHAPES:
        if done and time.monotonic() > until:
            break
        done += 1
        pages = mg.PageMatrix(random_pages(num_pages, page_size, seed=0))
        with (
            mg.open_engine(pages, device="cuda") as engine,
            mg.open_engine(pages, device="cpu") as reference,
        ):
            for keys in (1, 3):  # in chunks of 1, 2, 4 and 5 queries: every kernel
                batch = random_queries(num_pages, 5, keys, seed=keys)
                expected = reference.answer(batch).pages
                wrong += not np.array_equal(engine.answer(batch).pages, expected)
                for width in (4, 5):  # 12 and 15 keys: the kernels for 12 and for 24
                    for graph in (False, True):
                        wide = engine.answer(batch, max_micro_batch=width, lanes=4, graph=graph)
                        wrong += not np.array_equal(wide.pages, expected)
            ordinal = int(engine.device.removeprefix("cuda:"))
            capability = mg.driver_status().devices[ordinal].compute_capability
            for one in fitting(capability):
                width = one.keys[-1] // 3
                varied = engine.answer(batch, max_micro_batch=width, variant=one.name)
                wrong += not np.array_equal(varied.pages, expected)
            wrong += engine.read_pages() != np.bitwise_xor.reduce(
                padded(pages).view("<u8"), axis=None
            )
        with CudaEngine(pages, ordinal, generate=1) as engine:
            engine.read_pages()
        wrong += check_bits(pages, ordinal)
    print(f"{wrong} wrong answers over {done} of {len(SHAPES)} tables")
    return 1 if wrong else 0


def check_bits(pages: mg.PageMatrix, ordinal: int) -> int:
    """Count the wrong answers of wide chunks, on a GPU that has tensor cores for bits."""
    if mg.driver_status().devices[ordinal].compute_capability[0] not in (8, 9):
        return 0
    wrong = 0
    with (
        mg.open_engine(pages, device=f"cuda:{ordinal}", layout="bits") as engine,
        mg.open_engine(pages, device="cpu") as reference,
    ):
        for queries in (5, 11, 32):  # 15, 33 and 96 keys: a kernel each
            batch = random_queries(pages.num_pages, queries, 3, seed=queries)
            wide = engine.answer(batch, max_micro_batch=queries)
            wrong += not np.array_equal(wide.pages, reference.answer(batch).pages)
    return wrong


def padded(pages: mg.PageMatrix) -> np.ndarray:
    """Return the pages as they lie on the device: padded with zeros to whole vectors."""
    table = np.zeros((pages.num_pages, -(-pages.page_size // 16) * 16), dtype=np.uint8)
    table[:, : pages.page_size] = pages.body
    return table


if __name__ == "__main__":
    sys.exit(main())
