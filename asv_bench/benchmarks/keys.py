"""Keys: expansion, generation, and packing for a launch. Costs are in times of a fixed loop."""

from __future__ import annotations

import morphogen as mg

from .rounds import cost
from .scan import make_batch

NUM_PAGES = 2**25


class Expansion:
    params = ([2**16, 2**20],)
    param_names = ("pages",)

    def track_cost_of_eval_full(self, pages: int) -> float:
        key, _ = mg.dpf.gen(pages // 3, pages)
        return cost(lambda: mg.dpf.eval_full(key, pages))

    track_cost_of_eval_full.unit = "x a fixed loop"


def track_cost_of_gen() -> float:
    return cost(lambda: mg.dpf.gen(NUM_PAGES // 3, NUM_PAGES))


track_cost_of_gen.unit = "x a fixed loop"


def track_cost_of_a_query_of_three_keys() -> float:
    return cost(lambda: mg.make_query([NUM_PAGES // 3, 0, NUM_PAGES - 1], NUM_PAGES))


track_cost_of_a_query_of_three_keys.unit = "x a fixed loop"


class Pack:
    params = ([2, 32],)
    param_names = ("queries",)

    def track_cost_of_planning_and_packing(self, queries: int) -> float:
        packer = mg.planner.KeyPacker(NUM_PAGES)
        batch = make_batch(NUM_PAGES, queries, 3)

        def plan_and_pack() -> None:
            mg.planner.micro_batch_ranges(queries)
            packer.pack(batch)

        return cost(plan_and_pack)

    track_cost_of_planning_and_packing.unit = "x a fixed loop"
