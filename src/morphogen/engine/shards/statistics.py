"""What the passes of a sharded engine came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morphogen.engine.locks import Condition

COUNTS = (
    "passes",
    "parts",
    "retries",
    "hedges",
    "hedges_won",
    "doubles",
    "failures",
    "mismatches",
    "gaps",
)


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """Counts since a sharded engine was opened.

    Attributes
    ----------
    passes : int
        Passes that were begun: one for each chunk, over all shards.
    parts : int
        Parts that are in an answer, or will be.
    retries : int
        Passes that were submitted again for a shard, after a replica had failed.
    hedges : int
        Passes that were also submitted to another replica, since one took long.
    hedges_won : int
        Those of them whose part came first.
    doubles : int
        Parts that came when there was one already, or when their pass had ended. None is in an
        answer.
    failures : int
        Errors that replicas told, mismatches included.
    mismatches : int
        Parts and errors of another version or range of the table, or of another shape. None is in
        an answer.
    gaps : int
        Times that a shard had no replica to ask.
    gap_seconds : float
        How long they were together, until the shard's next part.
    longest_gap : float
        Seconds of the longest.
    replicas : tuple of int
        Of each shard: its replicas.
    usable : tuple of int
        Of each shard: those of them that are usable now.
    """

    passes: int
    parts: int
    retries: int
    hedges: int
    hedges_won: int
    doubles: int
    failures: int
    mismatches: int
    gaps: int
    gap_seconds: float
    longest_gap: float
    replicas: tuple[int, ...]
    usable: tuple[int, ...]


class Tally:
    """The counts of a sharded engine, whatever its shards are."""

    def __init__(self) -> None:
        self._lock = Condition()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._gap_began: dict[int, float] = {}  # by shard
        self._gap_seconds = self._longest_gap = 0.0

    def count(self, *names: str) -> None:
        """Add one to each of some counts.

        Parameters
        ----------
        *names : str
            Of `ShardStatistics`.
        """
        with self._lock:
            for name in names:
                self._counts[name] += 1

    def gap_begins(self, shard: int, now: float) -> None:
        """Note that a shard has no replica to ask.

        Parameters
        ----------
        shard : int
            Its number.
        now : float
            The time in seconds.
        """
        with self._lock:
            if shard not in self._gap_began:
                self._gap_began[shard] = now
                self._counts["gaps"] += 1

    def gap_ends(self, shard: int, now: float) -> None:
        """Note that a shard has answered.

        Parameters
        ----------
        shard : int
            Its number. It may have had no gap.
        now : float
            The time in seconds.
        """
        if shard in self._gap_began:
            with self._lock:
                seconds = now - self._gap_began.pop(shard, now)
                self._gap_seconds += seconds
                self._longest_gap = max(self._longest_gap, seconds)

    def statistics(
        self, now: float, replicas: Sequence[int], usable: Sequence[int]
    ) -> ShardStatistics:
        """The counts so far, with gaps that have not ended.

        Parameters
        ----------
        now : float
            The time in seconds.
        replicas, usable : sequence of int
            Of each shard.

        Returns
        -------
        ShardStatistics
        """
        with self._lock:
            running = [now - began for began in self._gap_began.values()]
            return ShardStatistics(
                **self._counts,
                gap_seconds=self._gap_seconds + sum(running),
                longest_gap=max(self._longest_gap, *running, 0.0),
                replicas=tuple(replicas),
                usable=tuple(usable),
            )
