"""Small tables over several devices of the stand-in driver, and their right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import morphogen as mg
from naive import Bytes, naive_answers, random_pages, random_rows

SIZE = 16
ARRAY = random_pages(3 * 512 + 5, SIZE)  # four leaves, of which the last is a short one
BATCH = mg.make_queries(random_rows(3, 2, len(ARRAY)), len(ARRAY))[0]
INDICES = [0, 511, 512, 1030, len(ARRAY) - 1]  # on each of two devices
CONTENTS = random_pages(len(INDICES), SIZE, seed=1)
AFTER = ARRAY.copy()
AFTER[INDICES] = CONTENTS


def open_devices(device: str | Sequence[str] = "cuda:all", array: Bytes = ARRAY) -> Any:
    return mg.open_engine(mg.PageMatrix(array), device=device)


def assert_answers(engine: mg.Engine, array: Bytes = ARRAY) -> None:
    assert np.array_equal(engine.answer(BATCH).pages, naive_answers(array, BATCH))
