"""Keys to selection bits: EvalFull on every instruction set, and Eval of one page."""

from morphogen import dpf, instruction_set

from .rounds import median_ratio

KEYS = {pages: dpf.gen(pages // 3, pages)[0] for pages in (2**10, 2**16, 2**20, 2**25)}


class EvalFull:
    params = ([2**16, 2**20], list(instruction_set.compiled()))
    param_names = ("pages", "instruction set")

    def setup(self, pages: int, name: str) -> None:
        if name not in instruction_set.supported():
            raise NotImplementedError(f"this machine lacks {name}")
        # asv times single calls where there is a setup, unless told how many.
        self.number = 2**24 // pages

    def time_eval_full(self, pages: int, name: str) -> None:
        dpf.eval_full(KEYS[pages], pages, instruction_set=name)

    def track_speedup_over_baseline(self, pages: int, name: str) -> float:
        key = KEYS[pages]
        return median_ratio(
            lambda: dpf.eval_full(key, pages, instruction_set="baseline"),
            lambda: dpf.eval_full(key, pages, instruction_set=name),
            rounds=31,
        )

    track_speedup_over_baseline.unit = "x"


class EvalAt:
    params = tuple(KEYS)
    param_names = ("pages",)

    def time_eval_at(self, pages: int) -> None:
        dpf.eval_at(KEYS[pages], pages // 3, pages)
