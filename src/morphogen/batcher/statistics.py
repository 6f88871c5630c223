"""Counts and times of a batcher."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """The work of a batcher since it was made.

    Attributes
    ----------
    queued, running : int
        Queries that wait now, and those in the chunks that run now.
    in_flight : int
        Chunks that run now.
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
    in_flight: int
    chunk_sizes: dict[int, int]
    answered: int
    failed: int
    cancelled: int
    expired: int
    refused: int
    waiting_seconds: float
    running_seconds: float

    def __add__(self, other: BatcherStatistics) -> BatcherStatistics:
        """The work of two batchers."""
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name != "chunk_sizes"
        }
        sizes = Counter(self.chunk_sizes) + Counter(other.chunk_sizes)
        return BatcherStatistics(chunk_sizes=dict(sorted(sizes.items())), **sums)

    @property
    def mean_chunk_size(self) -> float:
        """Mean queries in a chunk, 0 before the first."""
        chunks = sum(self.chunk_sizes.values())
        return sum(size * n for size, n in self.chunk_sizes.items()) / chunks if chunks else 0.0
