"""The targets of the CPU engine, and rows of figures that are judged by them.

The table of targets has rows of its own for certain tables and thread counts. The other page sizes
and thread counts are held to the same limits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "asv_bench"))

from benchmarks.rounds import Spread

# The table that the targets are for, and tables of the same size in other pages.
NUM_PAGES, PAGE_SIZE = 65_536, 4_096
PAGE_SIZES = (32, 256, 1_024, PAGE_SIZE, 65_536)
THREADS = (1, 2)
KEY_PAGES = 2**25

# Queries x keys of one pass, and queries of 3 keys a batch.
SHAPES = {(1, 1): "1 query x 1 key", (1, 3): "1 query x 3 keys", (2, 3): "2 queries x 3 keys"}
BATCH_SIZES = (2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Target:
    """A limit, of a ratio where the row has one, else of the time in seconds.

    Attributes
    ----------
    limit : float
    text : str
    at_least : bool
        Whether larger is better.
    own : bool
        Whether the table of targets has this very row.
    """

    limit: float
    text: str
    at_least: bool = False
    own: bool = True

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, or two: a time in seconds, and its ratio to something of the same rounds."""

    section: str
    what: str
    seconds: Spread
    ratio: Spread | None = None
    target: Target | None = None
    page_size: int | None = None
    threads: int | None = None

    @property
    def value(self) -> float:
        """What the target is for."""
        return (self.ratio or self.seconds).median

    @property
    def verdict(self) -> str:
        """``"pass"``, ``"FAIL"``, or empty without a target."""
        if self.target is None:
            return ""
        return "pass" if self.target.met(self.value) else "FAIL"


_PASSES = {(1, 1): Target(1.10, "<= 1.10x"), (2, 3): Target(1.15, "<= 1.15x")}
_SPEEDUPS = {
    8: Target(6, ">= 6x", at_least=True),
    32: Target(10, ">= 10x", at_least=True),
}
# The times of the fastest peer, dpf-cpp, on a machine with AVX-512 that reads 13.7 GB/s a thread.
EXPAND_TARGETS = {
    2**16: Target(7.73e-6, "<= 7.73 us"),
    2**20: Target(112.9e-6, "<= 112.9 us"),
}
GEN_TARGET = Target(10e-6, "<= 10 us")
PACK_TARGET = Target(1e-6, "<= 1 us")
LAUNCH_TARGET = Target(10e-6, "<= 10 us")
IMPORT_TARGET = Target(0.1, "<= 0.1 s")


def pass_target(queries: int, keys: int, page_size: int, threads: int) -> Target | None:
    """How many times the pure read's time one pass may take."""
    return _owned(_PASSES.get((queries, keys)), page_size, threads)


def speedup_target(queries: int, page_size: int, threads: int) -> Target | None:
    """How many times as fast as the single-query loop a batch of 3-key queries must be."""
    return _owned(_SPEEDUPS.get(queries), page_size, threads)


def _owned(target: Target | None, page_size: int, threads: int) -> Target | None:
    return target and replace(target, own=page_size == PAGE_SIZE and threads == 1)
