"""The real GPU engine over the driver that the tests build: what the host does, without a GPU.

Not applicable where the bindings, a compiler or pytest are missing, or a driver is loaded already.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import TYPE_CHECKING

from .compiled import ROOT

if TYPE_CHECKING:
    from standin_driver import StandIn

sys.path += [str(ROOT / "tools" / "measure"), str(ROOT / "tests" / "emulator")]

NUM_PAGES, PAGE_SIZE = 4_096, 4_096
# Kept from one process to the next: compiling it takes a while.
BUILT = ROOT / "build" / "standin"

timeout = 300


@functools.cache
def open_driver() -> StandIn:
    """The stand-in, loaded in this process before the bindings look for a driver."""
    for module in ("cuda.bindings", "pytest"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise NotImplementedError(f"needs {module}")
    import standin_driver

    if standin_driver.other_driver():
        raise NotImplementedError(f"this process has loaded {standin_driver.other_driver()}")
    BUILT.mkdir(parents=True, exist_ok=True)
    driver = standin_driver.StandIn(standin_driver.build(BUILT) / standin_driver.LIBRARY)
    driver.reset()
    return driver
