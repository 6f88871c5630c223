"""The host's time from `answer()` to the launch, through the real engine and bindings.

The driver is the stand-in that the tests build, with kernels, copies and waits switched off, so no
GPU is needed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import morphogen as mg

from .rounds import clock_cost
from .scan import make_batch

if TYPE_CHECKING:
    from standin_driver import StandIn

TESTS = Path(__file__).resolve().parents[2] / "tests"
# The folder where pytest keeps compiled libraries of the tests, so that none is compiled twice.
BUILT = TESTS.parent / ".pytest_cache" / "d" / "native"
NUM_PAGES, PAGE_SIZE = 65_536, 4_096
CALLS = 100

timeout = 300


def open_driver() -> StandIn:
    """Load the stand-in in this process, before the bindings look for a driver."""
    sys.path += [str(TESTS / "emulator"), str(TESTS / "support"), str(TESTS)]
    import standin_driver

    if standin_driver.other_driver():
        raise NotImplementedError(f"this process has loaded {standin_driver.other_driver()}")
    BUILT.mkdir(parents=True, exist_ok=True)
    driver = standin_driver.StandIn(standin_driver.build(BUILT) / standin_driver.LIBRARY)
    driver.reset()
    driver.set_null(True)
    return driver


def open_table() -> mg.Engine:
    """Open the GPU engine over empty pages: the driver does nothing."""
    pages = np.zeros((NUM_PAGES, PAGE_SIZE), dtype=np.uint8)
    return mg.open_engine(mg.PageMatrix(pages), device="cuda:0")


class Launch:
    params = ([1, 2],)
    param_names = ("queries",)

    def setup(self, queries: int) -> None:
        self.driver = open_driver()

    def track_cost_of_reaching_it(self, queries: int) -> float:
        driver, batch = self.driver, make_batch(NUM_PAGES, queries, 3)
        with open_table() as engine:

            def time_to_launch() -> float:
                times = []
                for _ in range(CALLS):
                    called = time.monotonic_ns()
                    engine.answer(batch)
                    times.append(driver.last_launch_ns() - called)
                return 1e-9 * float(np.median(times))

            return clock_cost(time_to_launch)

    track_cost_of_reaching_it.unit = "x a fixed loop"
