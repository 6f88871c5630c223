"""In place of morphogen: calls take what a commit says, by a clock that they alone move.

The benchmarks of asv_bench measure it as they would the real package.
"""

import time
from types import SimpleNamespace

from pace import EXPANSION, LOOP, SCAN, TWO_THREADS

TICK = 2e-3  # passes whenever somebody looks: what a pure read and the fixed loop take

_now = 0.0


def _take(seconds):
    global _now
    _now += seconds
    return _now


time.perf_counter = lambda: _take(TICK)

dpf = SimpleNamespace(
    gen=lambda index, num_pages: (b"", b""),
    eval_full=lambda key, num_pages: _take(EXPANSION * num_pages),
)


def PageMatrix(array):  # noqa: N802, named as the class
    return array


def open_engine(pages, device, threads):
    def answer(queries, max_micro_batch=None):
        loop = LOOP if max_micro_batch == 1 else 1.0
        _take(SCAN * loop * (TWO_THREADS if threads == 2 else 1.0))

    return SimpleNamespace(answer=answer)


def make_queries(indices, num_pages):
    return list(indices), list(indices)
