"""The parts of a pass over the pages, and what they say of the whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from measure_targets import Target

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "asv_bench"))

from benchmarks.rounds import Seconds

_NEARLY_ALL = 0.9  # of a pass: what takes as much of it decides


@dataclass(frozen=True, slots=True)
class Case:
    """One pass: a table, the keys that share it, the threads, the instruction set."""

    pages: int
    page_size: int
    queries: int
    keys: int
    threads: int
    instruction_set: str | None = None

    def describe(self) -> str:
        queries = "1 query" if self.queries == 1 else f"{self.queries} queries"
        keys = "1 key" if self.keys == 1 else f"{self.keys} keys"
        name = f", {self.instruction_set}" if self.instruction_set else ""
        return (
            f"{self.pages:,} x {self.page_size:,} bytes, {queries} x {keys}, "
            f"threads: {self.threads}{name}"
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """Processor seconds of a pass and of its parts: medians over the rounds.

    Attributes
    ----------
    case : Case
    small_bytes : int
        The larger of the two tables that the scan in the cache was measured with.
    whole : float
        The pass.
    read, trees, scan, call : float
        Its parts, as tools/scan_profile.py says.
    ratio : float
        Pass over pure read by the wall's clock; or, for more than 2 queries, how many times as
        fast as the single-query loop.
    target : Target or None
        Of the ratio.
    """

    case: Case
    small_bytes: int
    whole: float
    read: float
    trees: float
    scan: float
    call: float
    ratio: float
    target: Target | None

    @classmethod
    def of(
        cls,
        case: Case,
        times: Mapping[str, Seconds],
        few: int,
        ratio: float,
        target: Target | None,
    ) -> Profile:
        """From the seconds of each round.

        Parameters
        ----------
        case : Case
        times : mapping of str to numpy.ndarray
            "pass" and "read", of a thread; of one thread alone, "trees" of the table, "small" and
            "small trees" of `few` pages, "double" and "double trees" of twice as many.
        few : int
        ratio : float
        target : Target or None
        """
        medians = {what: float(np.median(seconds)) for what, seconds in times.items()}
        # Of the two small calls: what the second half of the pages adds is scan and trees alone.
        more_trees = medians["double trees"] - medians["small trees"]
        a_page = max(0.0, medians["double"] - medians["small"] - more_trees) / few
        call = max(0.0, medians["small"] - few * a_page - medians["small trees"])
        return cls(
            case,
            2 * few * case.page_size,
            medians["pass"],
            medians["read"],
            medians["trees"] / case.threads,
            a_page * case.pages / case.threads,
            call,
            ratio,
            target,
        )

    @property
    def met(self) -> bool:
        """Whether the target is met, or there is none."""
        return self.target is None or self.target.met(self.ratio)

    @property
    def work(self) -> float:
        """Trees, scan and call: what a pass would take if memory cost nothing."""
        return self.trees + self.scan + self.call

    @property
    def rest(self) -> float:
        """What the pass takes beyond the larger of read and work; negative where they vary."""
        return self.whole - max(self.read, self.work)

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by name, in the order of the tables."""
        return {
            "pass": self.whole,
            "read": self.read,
            "trees": self.trees,
            "scan": self.scan,
            "call": self.call,
            "rest": self.rest,
        }

    @property
    def outcome(self) -> str:
        """What decides, in words: computed from the parts, not judged."""
        if self.scan <= 0:
            # Two small calls that both mostly clear and gather the sums of wide pages, say.
            return "unknown: the scan was lost in the noise of the calls it was measured with"
        work = {"expanding trees": self.trees, "the scan": self.scan, "the call": self.call}
        if max(self.read, self.work) >= _NEARLY_ALL * self.whole:
            if self.read >= self.work:
                return "the read decides"
            return f"{max(work, key=lambda name: work[name])} decides"
        if self.whole <= self.read + self.work:
            return "read and work overlap in part"
        # As when pages are read in another order than memory's.
        return "longer than read and work in turn"
