"""The driver calls that some work makes, for tests that let each fail once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import morphogen as mg
from standin_driver import StandIn

# If one of these fails, memory stays that nobody can free, and that is no reason to raise.
RELEASING = {
    "cuMemFree",
    "cuMemFreeHost",
    "cuStreamDestroy",
    "cuEventDestroy",
    "cuModuleUnload",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
    "cuDevicePrimaryCtxRelease",
}


def calls_of(gpu: StandIn, work: Callable[[], mg.Engine | None]) -> list[tuple[str, int]]:
    """Each driver call of some work, with which call of its function it is, from 1.

    An engine that the work has opened is closed, which does not count.
    """
    gpu.reset_log()
    opened = work()
    log = gpu.log()
    if opened is not None:
        opened.close()
    seen: Counter[str] = Counter()
    calls = []
    for entry in log:
        seen[entry.function] += 1
        calls.append((entry.function, seen[entry.function]))
    return calls
