"""Epochs of few pages on a GPU of the stand-in driver, and a call that stops in its middle."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np

import morphogen as mg
from naive import Bytes, naive_answers, random_pages, random_rows
from standin_driver import StandIn

SECONDS = 60  # only a failed test waits this long
ARRAY = random_pages(150, 40)
INDICES = [0, 3, 4, 5, 77, 149]
CONTENTS = random_pages(len(INDICES), 40, seed=1)
AFTER = ARRAY.copy()
AFTER[INDICES] = CONTENTS
BATCH = mg.make_queries(random_rows(5, 2, len(ARRAY)), len(ARRAY))[0]


def open_gpu(array: Bytes = ARRAY) -> Any:
    return mg.open_engine(mg.PageMatrix(array.copy()), device="cuda:0")


def assert_answers(engine: Any, array: Bytes, **options: Any) -> None:
    assert np.array_equal(engine.answer(BATCH, **options).pages, naive_answers(array, BATCH))


def live(gpu: StandIn) -> Counter[str]:
    return +Counter(gpu.live())


class Gate(mg.Query):
    """A query at which an engine's call stops, with its lock held and nothing decided."""

    reached: threading.Event
    open: threading.Event

    def __init__(self) -> None:
        object.__setattr__(self, "reached", threading.Event())
        object.__setattr__(self, "open", threading.Event())

    @property
    def keys(self) -> tuple[bytes, ...]:
        self.reached.set()
        assert self.open.wait(SECONDS)
        return BATCH[0].keys
