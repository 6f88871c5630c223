"""Callers that ask one query after the other, and compare the answers: the load of a cluster."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import numpy.typing as npt

from morphogen import MicroBatcher, Query
from morphogen.bench.workload import random_queries
from morphogen.engine.base import Engine

KEYS = 3  # of a query
POOL = 64  # queries whose answers are known


class WrongAnswerError(Exception):
    """An answer was wrong, or there was none."""


def queries_for(engine: Engine, count: int) -> list[Query]:
    return random_queries(engine.table.num_pages, count, KEYS, seed=1)


class Load:
    """Callers that ask one query after the other, and compare the answers; works with `with`.

    They share passes through a batcher, or each call makes a pass of its own.
    """

    def __init__(
        self, engine: Engine, right: npt.NDArray[np.uint8], callers: int, batched: bool = True
    ) -> None:
        self.done: list[float] = []  # when answers came
        self.wrong = self.lost = 0
        self._engine, self._right = engine, right
        self._batch = queries_for(engine, POOL)
        self._batcher = MicroBatcher(engine) if batched else None
        self._ended = threading.Event()
        self._callers = [
            threading.Thread(target=self._call, args=(number,)) for number in range(callers)
        ]

    def _call(self, first: int) -> None:
        for number in itertools.count(first):
            if self._ended.is_set():
                return
            query, right = self._batch[number % POOL], self._right[number % POOL]
            try:
                if self._batcher is None:
                    answer = self._engine.answer([query])
                else:
                    answer = self._batcher.submit(query).result()
            except Exception:
                self.lost += 1
                continue
            self.wrong += not np.array_equal(answer.pages.reshape(right.shape), right)
            self.done.append(time.perf_counter())

    def gap(self, since: float) -> float:
        """The longest time between two answers since then, until now."""
        times = [since, *(one for one in self.done if one > since), time.perf_counter()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def check(self) -> None:
        if self.wrong or self.lost:
            raise WrongAnswerError(f"{self.wrong} answers wrong, {self.lost} lost")

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._ended.set()
        for caller in self._callers:
            caller.join()
        if self._batcher is not None:
            self._batcher.close()
