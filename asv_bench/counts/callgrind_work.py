"""The calls whose instructions callgrind counts. callgrind.py runs this program under valgrind.

    python callgrind_work.py LIBRARY INSTRUCTION_SET

Each kind of work first runs a few times without a count, to fill the caches. Then it runs REPEATS
times within one region, and callgrind writes the region to a file. The region "nothing" has the
cost of the region itself.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
from collections.abc import Callable

import numpy as np

import morphogen as mg
from morphogen.engine.cpu import CpuEngine
from morphogen.keyword.placement import place_rows
from morphogen.keyword.rows import Rows
from morphogen.keyword.sizes import Wishes

# The pages are eight times the simulated last cache (callgrind.py), so every pass over them shows.
NUM_PAGES, PAGE_SIZE = 2_048, 4_096
KEY_PAGES = 2**25
ENTROPY, MORE_ENTROPY = bytes(range(48)), bytes(range(3 * 48))
REPEATS = {"answer": 2, "build": 1, "expand": 2, "gen": 20, "plan and pack": 20, "nothing": 20}

ANSWERS = ("1 x 1", "1 x 3", "2 x 3", "8 x 3", "32 x 3")
NOTHING = "nothing"


def repeats(name: str) -> int:
    return next(count for kind, count in REPEATS.items() if name.startswith(kind))


def make_batch(num_pages: int, queries: int, keys: int) -> list[mg.Query]:
    """Make a batch of keys that are the same in every run."""
    random = np.random.default_rng(1)

    def make_key() -> bytes:
        index = int(random.integers(num_pages))
        return mg.dpf.gen(index, num_pages, entropy=random.bytes(48))[0]

    return [mg.Query([make_key() for _ in range(keys)]) for _ in range(queries)]


def make_works(instruction_set: str) -> dict[str, Callable[[], object]]:
    pages = mg.PageMatrix(np.ones((NUM_PAGES, PAGE_SIZE), dtype=np.uint8))
    engine = CpuEngine(pages, threads=1, instruction_set=instruction_set)
    packer = mg.planner.KeyPacker(KEY_PAGES)
    works: dict[str, Callable[[], object]] = {NOTHING: lambda: None}

    def add_answer(shape: str) -> None:
        queries, keys = map(int, shape.split(" x "))
        batch = make_batch(NUM_PAGES, queries, keys)
        works[f"answer {shape}"] = lambda: engine.answer(batch)

    def add_expansion(exponent: int) -> None:
        key = mg.dpf.gen(1, 2**exponent, entropy=ENTROPY)[0]
        works[f"expand 2^{exponent}"] = lambda: mg.dpf.eval_full(
            key, 2**exponent, instruction_set=instruction_set
        )

    def add_packing(queries: int) -> None:
        batch = make_batch(KEY_PAGES, queries, 3)

        def plan_and_pack() -> None:
            mg.planner.micro_batch_ranges(queries)
            packer.pack(batch)

        works[f"plan and pack {queries}"] = plan_and_pack

    def add_build(entries: int) -> None:
        keys = [b"%016d" % number for number in range(entries)]
        values = [key + key for key in keys]
        wishes = Wishes(PAGE_SIZE, 32, None, 0)

        def build() -> None:
            """All of it but for the proofs, whose hashes are another library's."""
            rows = Rows()
            rows.add_many(keys, values)
            placed = place_rows(rows, wishes, bytes(16), "error", lambda *_: None)
            pages = np.empty((placed.layout.num_pages, PAGE_SIZE), dtype=np.uint8)
            placed.fill(pages, 0)

        works[f"build of {entries} entries"] = build

    for shape in ANSWERS:
        add_answer(shape)
    add_build(20_000)
    for exponent in (16, 20):
        add_expansion(exponent)
    works["gen 2^25"] = lambda: mg.dpf.gen(KEY_PAGES // 3, KEY_PAGES, entropy=ENTROPY)
    works["gen of 3 at 2^25"] = lambda: mg.dpf.gen_many((1, 2, 3), KEY_PAGES, entropy=MORE_ENTROPY)
    for queries in (2, 32):
        add_packing(queries)
    return works


def main(library: str, instruction_set: str) -> None:
    region = ctypes.CDLL(library)
    if not region.running_on_valgrind():
        raise SystemExit("this counts nothing unless it runs under valgrind")
    works = make_works(instruction_set)
    gc.disable()  # a collection within a region would be counted
    region.watch()
    for name, work in works.items():
        turns = itertools.repeat(None, repeats(name))
        work()
        work()
        region.begin()
        for _ in turns:
            work()
        region.end(name.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
