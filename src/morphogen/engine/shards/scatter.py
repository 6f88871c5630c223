"""One call of a sharded engine: passes go to all shards, and their parts are gathered.

The caller's thread submits, and waits; the threads of transports tell of parts. A pass is pure, so
it can be submitted again: after a failure, or beside a replica that takes long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import numpy as np
import numpy.typing as npt

from morphogen.engine.locks import Condition
from morphogen.engine.shards.attempts import NEVER_BEFORE, Attempt, Chunk, Slot
from morphogen.engine.shards.replicas import Replicas
from morphogen.engine.shards.transport import Part, Pass, named_version
from morphogen.errors import ShardMismatchError, ShardUnavailableError
from morphogen.sharding import Coverage, ShardRange, fold

# Seconds before a replica that failed at a pass is asked again, if all did: twice as many after
# each failure.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


class Clock:
    """Tells the time, and waits. Tests have one of their own, and never sleep."""

    def now(self) -> float:
        """Seconds since some moment."""
        return monotonic()

    def wait(self, condition: Condition, holds: Callable[[], bool], timeout: float | None) -> None:
        """Wait until something holds, or some seconds have passed.

        Parameters
        ----------
        condition : Condition
            Held. It is notified of changes.
        holds : callable
            Tells whether it holds.
        timeout : float or None
            The seconds; None for no limit.
        """
        condition.wait_for(holds, timeout)


class Scatter:
    """The passes of one call.

    Parameters
    ----------
    replicas : Replicas
        Of all shards.
    ranges : sequence of ShardRange
        Of all shards, in order.
    page_size : int
        Bytes a page.
    clock : Clock
        Tells the time.
    timeout : float or None
        Seconds that a pass may take, with all retries. None for as long as replicas take, each of
        which is then asked once.
    hedge : float or None
        Seconds after which a pass takes long, and is also submitted to another replica.
    """

    def __init__(
        self,
        replicas: Replicas,
        ranges: Sequence[ShardRange],
        page_size: int,
        clock: Clock,
        timeout: float | None,
        hedge: float | None,
    ) -> None:
        self._ranges = ranges
        self._replicas = replicas
        self._page_size = page_size
        self._clock = clock
        self._timeout = timeout
        self._hedge = hedge
        self._condition = Condition()
        self._news = False  # something that the caller's thread must look at
        self._running: list[Chunk] = []

    def run(self, jobs: Iterable[tuple[Pass, npt.NDArray[np.uint8]]], max_in_flight: int) -> None:
        """Have passes answered.

        Parameters
        ----------
        jobs : iterable of (Pass, numpy.ndarray)
            The passes, and the arrays to write their sums to. If this fails, some may be written.
        max_in_flight : int
            How many may be under way at a time.

        Raises
        ------
        ShardUnavailableError
            If a shard has no part of one in time.
        """
        try:
            self._run(deque(jobs), max_in_flight)
        finally:
            for chunk in self._running:
                chunk.ended = True

    def wake(self) -> None:
        """Have the caller's thread look again for replicas to ask."""
        with self._condition:
            for chunk in list(self._running):
                for slot in chunk.slots:
                    slot.look_at = NEVER_BEFORE
            self._news = True
            self._condition.notify_all()

    def _run(self, waiting: deque[tuple[Pass, npt.NDArray[np.uint8]]], max_in_flight: int) -> None:
        running = self._running
        while waiting or running:
            while waiting and len(running) < max_in_flight:
                running.append(self._begin(*waiting.popleft()))
            self._news = False
            self._wait(self._look())
            for chunk in [one for one in running if one.coverage.complete]:
                chunk.ended = True
                # Parts are added up apart from this array, and none is added any more.
                fold(chunk.coverage, chunk.out)
                running.remove(chunk)

    def _begin(self, job: Pass, out: npt.NDArray[np.uint8]) -> Chunk:
        self._replicas.tally.count("passes")
        limit = float("inf") if self._timeout is None else self._timeout
        deadline = self._clock.now() + limit
        slots = [Slot() for _ in self._ranges]
        return Chunk(job, out, deadline, self.tell, Coverage(self._ranges), slots)

    # What the caller's thread does

    def _look(self) -> float:
        """Submit what is due. Returns when something is due again, if nothing is told before."""
        now = self._clock.now()
        soonest = float("inf")
        for chunk in self._running:
            if chunk.broken is not None:
                raise chunk.broken
            if chunk.coverage.complete:
                return now
            if now >= chunk.deadline:
                missing = [at for at in range(len(chunk.slots)) if not chunk.coverage.has(at)]
                raise self._unavailable(chunk, missing, f"in {self._timeout:g} seconds")
            soonest = min(soonest, chunk.deadline)
            for shard, slot in enumerate(chunk.slots):
                while not chunk.coverage.has(shard):
                    due, kind = self._due(slot)
                    if due > now:
                        soonest = min(soonest, due)
                        break
                    self._ask(chunk, shard, kind)
        return soonest

    def _wait(self, until: float) -> None:
        left = None if until == float("inf") else max(until - self._clock.now(), 0.0)
        with self._condition:
            if not self._has_news():
                self._clock.wait(self._condition, self._has_news, left)

    def _has_news(self) -> bool:
        return self._news

    def _due(self, slot: Slot) -> tuple[float, str]:
        """When a slot needs another replica, and what for."""
        attempts = slot.attempts.copy()
        if not attempts:
            return slot.look_at, "retries" if slot.failures else "first"
        if self._hedge is None:
            return float("inf"), "hedges"
        return max(slot.look_at, *map(self._replicas.late_at, attempts)), "hedges"

    def _ask(self, chunk: Chunk, shard: int, kind: str) -> None:
        slot = chunk.slots[shard]
        failures, avoid = slot.failures, []
        if kind != "first":
            with self._condition:
                failures = failures.copy()
                avoid = [attempt.replica for attempt in slot.attempts]
            if not slot.rested:
                avoid.extend(failures)  # those that failed are asked again only after all others
        attempt = self._replicas.claim(chunk, shard, avoid, failures, kind)
        if attempt is None:
            self._pause(chunk, shard, kind)
            return
        with self._condition:
            slot.attempts.append(attempt)
        try:
            attempt.replica.transport.submit(chunk.job, attempt.tell)
        except Exception as error:
            attempt.tell(error)

    def _pause(self, chunk: Chunk, shard: int, kind: str) -> None:
        """There is no replica to ask: look again later."""
        slot = chunk.slots[shard]
        if kind == "hedges":
            assert self._hedge is not None
            pause = self._hedge
        elif self._timeout is None:
            raise self._unavailable(chunk, [shard], "from any replica")
        else:
            pause = min(_FIRST_PAUSE * 2 ** min(slot.pauses, 32), _LONGEST_PAUSE)
            slot.pauses += 1
            slot.rested = True
        slot.look_at = self._clock.now() + pause

    def _unavailable(self, chunk: Chunk, shards: Sequence[int], limit: str) -> Exception:
        """The error for shards that gave no part."""
        first, *others = shards
        with self._condition:
            slot = chunk.slots[first]
            asked, last = bool(slot.attempts), slot.error
        more = f" and {len(others)} more ranges" if others else ""
        silent = "none that was asked has told" if asked else "no replica is usable"
        why = silent if last is None else str(last)
        error = ShardUnavailableError(f"{self._ranges[first]}{more} had no answer {limit}: {why}")
        error.__cause__ = last
        return error

    # What the threads of transports do

    def tell(self, attempt: Attempt, outcome: Part | Exception) -> None:
        """Take what came of an attempt.

        Parameters
        ----------
        attempt : Attempt
            Of a pass of this call, which may have ended.
        outcome : Part or Exception
            Its part, or what went wrong.
        """
        chunk, shard = attempt.chunk, attempt.shard
        fault = self._fault(chunk.job, shard, outcome)
        with self._condition:
            if attempt.told:
                if fault is None:
                    self._replicas.tally.count("doubles")
                return
            attempt.told = True
            slot = chunk.slots[shard]
            if attempt in slot.attempts:
                slot.attempts.remove(attempt)
            if fault is None:
                assert isinstance(outcome, Part)
                taken = not chunk.ended and self._add(chunk, shard, outcome)
                counted = ["parts" if taken else "doubles"]
                if taken:
                    self._replicas.tally.gap_ends(shard, self._clock.now())
                    if attempt.is_hedge:
                        counted.append("hedges_won")
                self._news |= chunk.coverage.complete or chunk.broken is not None
            else:
                counted = ["failures"]
                if isinstance(fault, ShardMismatchError):
                    counted.append("mismatches")
                slot.error = fault
                slot.failures[attempt.replica] = slot.failures.get(attempt.replica, 0) + 1
                slot.look_at, slot.rested = NEVER_BEFORE, False
                self._news = True
            self._replicas.settle(attempt)
            self._replicas.tally.count(*counted)
            if self._news:
                self._condition.notify_all()

    def _add(self, chunk: Chunk, shard: int, part: Part) -> bool:
        try:
            return chunk.coverage.add(shard, part.pages)
        except Exception as error:  # the slot is taken, and the sum is none
            chunk.broken = error
            return False

    def _fault(self, job: Pass, shard: int, outcome: Part | Exception) -> Exception | None:
        """What is wrong with what a replica told."""
        if isinstance(outcome, Exception):
            return outcome
        if not isinstance(outcome, Part):
            return TypeError(f"a shard tells a Part or an Exception, not {type(outcome).__name__}")
        held, pages, shape = self._ranges[shard], outcome.pages, job.part_shape(self._page_size)
        if outcome.number != job.number:
            return ShardMismatchError(f"a part of pass {outcome.number} came for {job.number}")
        if outcome.range != held:
            return ShardMismatchError(f"a part of {outcome.range} came for that of {held}")
        if outcome.epoch != job.epoch or outcome.root != job.root:
            return ShardMismatchError(
                f"a part of {named_version(outcome.epoch, outcome.root)} came for "
                f"{named_version(job.epoch, job.root)}"
            )
        if not isinstance(pages, np.ndarray) or pages.dtype != np.uint8 or pages.shape != shape:
            return ShardMismatchError(f"a part must be uint8 of shape {shape}")
        return None
