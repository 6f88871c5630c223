"""An engine over few pages on a GPU of the stand-in driver, with a batch and its naive answer."""

from __future__ import annotations

from typing import Any

import numpy as np

import morphogen as mg
from naive import naive_answers, random_pages, random_rows

ARRAY = random_pages(150, 40)
PAGES = mg.PageMatrix(ARRAY)
BATCH = mg.make_queries(random_rows(5, 2, len(ARRAY)), len(ARRAY))[0]
NAIVE = naive_answers(ARRAY, BATCH)


def open_gpu(device: str = "cuda:0") -> Any:
    return mg.open_engine(PAGES, device=device)


def assert_answers(engine: mg.Engine, **options: Any) -> None:
    assert np.array_equal(engine.answer(BATCH, **options).pages, NAIVE)
