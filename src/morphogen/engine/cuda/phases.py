"""The phases of a batch on a GPU, timed."""

from __future__ import annotations

import threading
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


@dataclass(frozen=True, slots=True)
class PhaseSums:
    """The phases of all chunks on a device, in seconds.

    Attributes
    ----------
    chunks : int
        Chunks that ran to their end.
    submit, device, wait, copy : float
        As of `ChunkTimes`. Where two chunks are under way, the device's time of one begins while
        the other runs.
    """

    chunks: int = 0
    submit: float = 0.0
    device: float = 0.0
    wait: float = 0.0
    copy: float = 0.0


class PhaseCounter:
    """Adds up the phases of chunks by device, for the engines that were opened with it.

    Any number of threads may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, PhaseSums] = {}

    def open(self, device: str) -> None:
        """Count a device, of which no chunk has run yet.

        Parameters
        ----------
        device : str
            Its name: "cuda:0".
        """
        with self._lock:
            self._sums.setdefault(device, PhaseSums())

    def add(self, name: str, submit: float, device: float, wait: float, copy: float) -> None:
        """Count a chunk.

        Parameters
        ----------
        name : str
            The device's.
        submit, device, wait, copy : float
            Its phases, in microseconds.
        """
        with self._lock:
            sums = self._sums[name]
            self._sums[name] = PhaseSums(
                sums.chunks + 1,
                sums.submit + submit * 1e-6,
                sums.device + device * 1e-6,
                sums.wait + wait * 1e-6,
                sums.copy + copy * 1e-6,
            )

    def sums(self) -> dict[str, PhaseSums]:
        """The sums so far.

        Returns
        -------
        dict of str to PhaseSums
            By the device's name.
        """
        with self._lock:
            return dict(sorted(self._sums.items()))
