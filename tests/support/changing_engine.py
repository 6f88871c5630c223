"""Engines of both devices over pages that change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.base import Engine
from naive import Bytes, naive_answers, random_pages, random_rows


@pytest.fixture(params=["cpu", "cuda:0"])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "cpu":
        request.getfixturevalue("gpu")
    return name


def changed(array: Bytes, indices: Any, seed: int = 1) -> tuple[Bytes, Bytes]:
    """Return new bytes for some pages, and the whole array with them."""
    contents = random_pages(len(indices), array.shape[1], seed)
    after = array.copy()
    after[indices] = contents
    return contents, after


def batch_for(array: Bytes, total: int = 3, keys: int = 2, seed: int = 0) -> list[mg.Query]:
    rows = random_rows(total, keys, len(array), seed)
    return mg.make_queries(rows, len(array))[seed % 2]


def assert_answers(engine: Engine, array: Bytes, epoch: int, **shape: int) -> None:
    batch = batch_for(array, **shape)
    answer = engine.answer(batch)
    assert answer.epoch == engine.pages.epoch == epoch
    assert np.array_equal(answer.pages, naive_answers(array, batch))
