"""A package in place of morphogen, whose calls take the time that a commit sets.

The benchmarks of asv_bench measure it like the real package. Only its calls move the clock.
"""

import time
from types import SimpleNamespace

from numpy import asarray as PageMatrix  # noqa: F401, N812
from pace import EXPANSION, LOOP, SCAN, TWO_THREADS  # type: ignore[import-not-found]

TICK = 2e-3  # passes with each look at the clock: the time of a pure read and of the fixed loop

_now = 0.0


def _take(seconds: float) -> float:
    global _now
    _now += seconds
    return _now


time.perf_counter = lambda: _take(TICK)

dpf = SimpleNamespace(
    gen=lambda index, num_pages: (b"", b""),
    eval_full=lambda key, num_pages: _take(EXPANSION * num_pages),
)


def open_engine(pages, device, threads):
    def answer(queries, max_micro_batch=None):
        loop = LOOP if max_micro_batch == 1 else 1.0
        _take(SCAN * loop * (TWO_THREADS if threads == 2 else 1.0))

    return SimpleNamespace(answer=answer)


def make_queries(indices, num_pages):
    return list(indices), list(indices)
