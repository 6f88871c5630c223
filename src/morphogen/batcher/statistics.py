"""Counts and times of a batcher."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """The work of a batcher since it was made.

    Attributes
    ----------
    queued, running : int
        Queries that wait now, and those in the chunk that runs now.
    chunk_sizes : dict of int to int
        The number of chunks of each size that ran to their end.
    answered, failed, cancelled, expired, refused : int
        Queries that were answered, met an error of the engine, were cancelled while they waited,
        waited beyond their time-out, and were not taken because the queue was full.
    waiting_seconds, running_seconds : float
        Sums over queries of the time in the queue, and over chunks of the time in the engine.
    """

    queued: int
    running: int
    chunk_sizes: dict[int, int]
    answered: int
    failed: int
    cancelled: int
    expired: int
    refused: int
    waiting_seconds: float
    running_seconds: float

    @property
    def mean_chunk_size(self) -> float:
        """Mean queries in a chunk, 0 before the first."""
        chunks = sum(self.chunk_sizes.values())
        return sum(size * n for size, n in self.chunk_sizes.items()) / chunks if chunks else 0.0


@dataclass(slots=True)
class ChunkCounts:
    """Counts of a batcher's chunks. Its owner's lock guards every call.

    Attributes
    ----------
    sizes : Counter of int
        The number of chunks of each size that ran to their end.
    answered, failed : int
        Queries in these, and in those that met an error.
    seconds : float
        Sum of the chunks' times.
    """

    sizes: Counter[int] = field(default_factory=Counter)
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, size: int, seconds: float, *, failed: bool) -> None:
        """Count a chunk.

        Parameters
        ----------
        size : int
            Queries in it.
        seconds : float
            That it took.
        failed : bool
            Whether it met an error.
        """
        self.seconds += seconds
        if failed:
            self.failed += size
        else:
            self.answered += size
            self.sizes[size] += 1
