"""A little of everything that a GPU does here, for compute-sanitizer, under which it is slow.

Exits with 1 if an answer differs from the CPU engine's.
"""

from __future__ import annotations

import sys

import numpy as np

import morphogen as mg
from morphogen.bench.workload import random_pages, random_queries
from morphogen.engine.cuda import CudaEngine

# Pages and bytes a page. They cover padding, a tail of a block, several tiles of columns and
# several leaves.
SHAPES = ((70, 1), (600, 48), (1100, 1000), (300, 4096), (130, 8208))


def main() -> int:
    wrong = 0
    for num_pages, page_size in SHAPES:
        pages = mg.PageMatrix(random_pages(num_pages, page_size, seed=0))
        with (
            mg.open_engine(pages, device="cuda") as engine,
            mg.open_engine(pages, device="cpu") as reference,
        ):
            for keys in (1, 2, 3):
                batch = random_queries(num_pages, 5, keys, seed=keys)
                expected = reference.answer(batch).pages
                wrong += not np.array_equal(engine.answer(batch).pages, expected)
                for width in (4, 5):  # 12 and 15 keys: the kernels for 12 and for 24
                    for graph in (False, True):
                        wide = engine.answer(batch, max_micro_batch=width, lanes=4, graph=graph)
                        wrong += not np.array_equal(wide.pages, expected)
            wrong += engine.read_pages() != np.bitwise_xor.reduce(
                padded(pages).view("<u8"), axis=None
            )
            ordinal = int(engine.device.removeprefix("cuda:"))
        with CudaEngine(pages, ordinal, generate=1) as engine:
            engine.read_pages()
    print(f"{wrong} wrong answers over {len(SHAPES)} tables")
    return 1 if wrong else 0


def padded(pages: mg.PageMatrix) -> np.ndarray:
    """Return the pages as they lie on the device: padded with zeros to whole vectors."""
    table = np.zeros((pages.num_pages, -(-pages.page_size // 16) * 16), dtype=np.uint8)
    table[:, : pages.page_size] = pages.body
    return table


if __name__ == "__main__":
    sys.exit(main())
