"""TableShape: how many pages a table has, how large they are, and which version."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

import morphogen as mg


def test_a_shape_says_what_a_table_is() -> None:
    shape = mg.TableShape(1000, 64, 7)
    assert (shape.num_pages, shape.page_size, shape.epoch, shape.nbytes) == (1000, 64, 7, 64_000)
    assert shape == mg.TableShape(num_pages=1000, page_size=64, epoch=7)
    assert mg.TableShape(1000, 64).epoch == 0
    assert replace(shape, epoch=8) == mg.TableShape(1000, 64, 8)


def test_a_shape_does_not_change_and_can_travel() -> None:
    shape = mg.TableShape(1000, 64, 7)
    with pytest.raises(FrozenInstanceError):
        shape.epoch = 8  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(shape)) == shape
    assert len({shape, mg.TableShape(1000, 64, 7)}) == 1


def test_numbers_of_numpy_become_plain() -> None:
    shape = mg.TableShape(*np.array([1000, 64, 7]))
    assert [type(value) for value in (shape.num_pages, shape.page_size, shape.epoch)] == [int] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 64), r"^num_pages must be in 1\.\.2\*\*40, not 0$"),
        ((2**40 + 1, 64), r"^num_pages must be in 1\.\.2\*\*40, not 1099511627777$"),
        ((1, 0), r"^page_size must be in 1\.\.2\*\*40, not 0$"),
        ((1, 2**40 + 1), r"^page_size must be in 1\.\.2\*\*40, not 1099511627777$"),
        ((1, 1, -1), r"^epoch must be in 0\.\.2\*\*63 - 1, not -1$"),
    ],
)
def test_a_number_out_of_range(values: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mg.TableShape(*values)


@pytest.mark.parametrize("values", [(1.0, 1, 0), (1, "1", 0), (1, 1, None)])
def test_a_number_that_is_no_int(values: Any) -> None:
    with pytest.raises(TypeError, match="must be an int, not"):
        mg.TableShape(*values)
