"""The phases of a batch on a GPU, timed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChunkTimes:
    """The phases of one chunk, in microseconds.

    Attributes
    ----------
    queries : int
        Queries in the chunk.
    submit : float
        The host's time to put the launch into its lane.
    device : float
        The device's time from the start of the launch to its end.
    wait : float
        The host's time until the lane was done, after it had nothing else to do.
    copy : float
        The host's time to copy the answer to the caller's array.
    """

    queries: int
    submit: float
    device: float
    wait: float
    copy: float


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """The phases of one batch, done in one lane, in microseconds.

    Attributes
    ----------
    prepare : float
        From the call to the first chunk: checks, plan, packing of the keys.
    chunks : tuple of ChunkTimes
        In order.
    total : float
        From the call to the last page.
    """

    prepare: float
    chunks: tuple[ChunkTimes, ...]
    total: float
