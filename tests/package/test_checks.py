"""Checks that many modules share: each error names the argument, its range and what was given."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.checks import OwnerProcess, as_indices, as_int, check_range, check_seconds


def test_an_int_is_taken_from_whatever_is_one() -> None:
    assert (as_int("n", 3), as_int("n", np.int64(3))) == (3, 3)
    for value in (3.0, "3", None):
        wrong: Any = value
        with pytest.raises(TypeError, match=rf"^n must be an int, not {type(value).__name__}$"):
            as_int("n", wrong)


def test_indices_are_taken_from_any_iterable_of_ints() -> None:
    for given in ([3, 2**70], (3, 2**70), iter([3, 2**70]), np.array([3, 2**70], dtype=object)):
        assert as_indices("pages", given) == [3, 2**70]
    assert as_indices("pages", np.array([3, 2**64 - 1], dtype=np.uint64)) == [3, 2**64 - 1]
    for value in ([1.0], [True], np.array([True]), ["1"], [None], 5, None):
        wrong: Any = value
        with pytest.raises(TypeError, match=r"^pages must be a sequence of ints: "):
            as_indices("pages", wrong)


@pytest.mark.parametrize(
    ("value", "low", "high", "message"),
    [
        (0, 1, 3, "n must be in 1..3, not 0"),
        (4, 1, 3, "n must be in 1..3, not 4"),
        (-1, 0, None, "n must be 0 or more, not -1"),
        (0, 1, 2**40, "n must be in 1..2**40, not 0"),
        (2**63, 0, 2**63 - 1, f"n must be in 0..2**63 - 1, not {2**63}"),
        (math.nan, 0, 1, "n must be in 0..1, not nan"),
    ],
)
def test_a_number_out_of_range(value: float, low: int, high: int | None, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared
        check_range("n", value, low, high)
    assert str(error.value) == message


def test_numbers_in_range() -> None:
    for value in (1, 2, 3):
        check_range("n", value, 1, 3)
    check_range("n", 2**80, 0)


def test_a_number_that_python_does_not_write() -> None:
    with pytest.raises(ValueError, match=r"^n must be in 1\.\.3, not an int of 16610 bits$"):
        check_range("n", 10**5000, 1, 3)


def test_a_range_of_a_device_and_another_error() -> None:
    with pytest.raises(IndexError, match=r"^n must be in 1\.\.3 on cuda:1, not 4$"):
        check_range("n", 4, 1, 3, where="cuda:1", error=IndexError)


def test_seconds() -> None:
    check_seconds("wait", 0)
    check_seconds("wait", math.inf, above_zero=True)
    for value in (-1, -math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"^wait must be 0 or more seconds, not {value}$"):
            check_seconds("wait", value)
    with pytest.raises(ValueError, match=r"^wait must be above 0 seconds, not 0$"):
        check_seconds("wait", 0, above_zero=True)


@pytest.mark.parametrize("value", ["1", None, [1]])
def test_what_is_no_number(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"^n must be a number, not {kind}$"):
        check_range("n", value, 1, 3)
    with pytest.raises(TypeError, match=rf"^wait must be a number of seconds, not {kind}$"):
        check_seconds("wait", value)


def test_an_object_belongs_to_the_process_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = OwnerProcess("engine", "open one in each process", mg.EngineClosedError)
    assert owner.is_current()
    owner.check()
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert not owner.is_current()
    message = (
        f"this engine belongs to process {parent}, not to its fork {parent + 1}: "
        "open one in each process"
    )
    with pytest.raises(mg.EngineClosedError, match=f"^{message}$"):
        owner.check()
