"""What the host does before a chunk can run: ranges, and packing of keys.

No class here has a setup: where there is one, asv times single calls, and these are too short.
"""

import itertools  # not `from`: asv takes a `repeat` in a module for a setting of its own
import sys
import tracemalloc

from morphogen.bench.workload import random_queries
from morphogen.planner import KeyPacker, micro_batch_ranges

from .rounds import Spread, interleave

NUM_PAGES = 2**25
ROUNDS = 31
PACKS = 1000

QUERIES = random_queries(NUM_PAGES, 32, 3, seed=0)
BATCHES = {size: QUERIES[:size] for size in (2, 32)}
PACKER = KeyPacker(NUM_PAGES)


class Plan:
    params = (1, 2, 32, 1024)
    param_names = ("queries",)

    def time_micro_batch_ranges(self, queries: int) -> None:
        micro_batch_ranges(queries)


class Pack:
    params = tuple(BATCHES)
    param_names = ("queries",)

    def time_pack(self, queries: int) -> None:
        PACKER.pack(BATCHES[queries])

    def track_plan_and_pack_a_chunk(self, queries: int) -> float:
        batch = BATCHES[queries]

        def plan_and_pack() -> None:
            micro_batch_ranges(queries)
            PACKER.pack(batch)

        seconds = Spread.of(interleave({"": plan_and_pack}, ROUNDS)[""]).median
        return 1e9 * seconds / len(micro_batch_ranges(queries))

    track_plan_and_pack_a_chunk.unit = "ns"

    def track_blocks_kept(self, queries: int) -> int:
        """Blocks of memory that Python holds after many packs, and did not hold before."""
        batch = BATCHES[queries]
        for _ in range(2):  # the first time, the interpreter fills caches of its own
            before = sys.getallocatedblocks()
            for _ in itertools.repeat(None, PACKS):
                PACKER.pack(batch)
            kept = sys.getallocatedblocks() - before
        return kept

    track_blocks_kept.unit = f"blocks in {PACKS} packs"

    def track_peak_bytes(self, queries: int) -> int:
        """The most memory that Python held during many packs, less what it held before."""
        batch = BATCHES[queries]
        PACKER.pack(batch)
        tracemalloc.start()
        try:
            turns = itertools.repeat(None, PACKS)
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in turns:
                PACKER.pack(batch)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return peak - before

    track_peak_bytes.unit = "bytes"
