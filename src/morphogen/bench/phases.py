"""The phases of a batch on a GPU: medians of their times."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from morphogen.bench.workload import Pages
from morphogen.engine.cuda.phases import PhaseTimes
from morphogen.query import Query

if TYPE_CHECKING:
    from morphogen.engine.cuda import CudaEngine


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """The phases of one batch size in one width: medians in microseconds.

    Attributes
    ----------
    q : int
        Queries in the batch.
    micro_batch_sizes : tuple of int
        Queries in each chunk.
    prepare_us, total_us : float
        Of the batch: until the first chunk, and in all.
    submit_us, device_us, wait_us, copy_us : float
        Of a chunk: see `morphogen.engine.cuda.phases.ChunkTimes`. They are timed in one lane.
    """

    q: int
    micro_batch_sizes: tuple[int, ...]
    prepare_us: float
    submit_us: float
    device_us: float
    wait_us: float
    copy_us: float
    total_us: float


def measure_phases(
    engine: CudaEngine,
    queries: list[Query],
    right: Pages,
    *,
    warmup: int,
    iterations: int,
    max_micro_batch: int | None,
) -> tuple[PhaseRow, list[str]]:
    """Answer a batch again and again, and take the medians of its phases.

    Parameters
    ----------
    engine : CudaEngine
    queries : list of Query
    right : numpy.ndarray
        The right answer.
    warmup, iterations : int
        Rounds that do not count, and rounds that do.
    max_micro_batch : int or None
        As for `Engine.answer`.

    Returns
    -------
    tuple of (PhaseRow, list of str)
        The second has the faults of the answers.
    """
    samples: list[PhaseTimes] = []
    wrong = 0
    sizes: tuple[int, ...] = ()
    for number in range(warmup + iterations):
        answer, times = engine.time_phases(queries, max_micro_batch=max_micro_batch)
        wrong += not np.array_equal(answer.pages, right)
        sizes = answer.micro_batch_sizes
        if number >= warmup:
            samples.append(times)

    chunks = [chunk for times in samples for chunk in times.chunks]
    row = PhaseRow(
        q=len(queries),
        micro_batch_sizes=sizes,
        prepare_us=median(times.prepare for times in samples),
        submit_us=median(chunk.submit for chunk in chunks),
        device_us=median(chunk.device for chunk in chunks),
        wait_us=median(chunk.wait for chunk in chunks),
        copy_us=median(chunk.copy for chunk in chunks),
        total_us=median(times.total for times in samples),
    )
    faults = [f"the answer with times by phase was wrong in {wrong} rounds"] if wrong else []
    return row, faults
