"""Medians and quartiles, and the interval that a median is sure to lie in."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from morphogen.bench.statistics import Spread, fewest_values, median_interval, p99


def test_the_middle_of_values():
    assert Spread.of([4, 1, 3, 2, 5]) == Spread(2, 3, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)
    assert Spread.of([1, 2, 3, 4, 5]).relative == pytest.approx(2 / 3)


def test_ratios_are_taken_within_a_round():
    """The second round was twice as slow for both, which is no difference."""
    assert Spread.of_ratio([2, 4, 2], [1, 2, 1]) == Spread(2, 2, 2)
    assert Spread.of_ratio([1, 4, 9], [1, 2, 3]) == Spread(1.5, 2, 2.5)


def test_the_99th_percentile_needs_a_hundred_values():
    assert p99(range(99)) is None
    assert p99(range(101)) == 99


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_how_many_values_it_takes(confidence):
    needed = fewest_values(confidence)
    assert median_interval(list(range(needed - 1)), confidence) is None
    assert median_interval(list(range(needed)), confidence) == (0, needed - 1)


@pytest.mark.parametrize("n", [5, 8, 11])
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9])
def test_the_interval_holds_the_median_as_often_as_it_says(n, confidence):
    """Each value is below the median (-1) or above (1), all 2^n ways alike: counted, not drawn."""
    interval = median_interval(range(n), confidence)
    assert interval is not None
    low, high = interval  # so many values are dropped at either end
    assert low == n - 1 - high

    def held(dropped: int) -> float:
        ways = [sorted(signs)[dropped : n - dropped] for signs in product((-1, 1), repeat=n)]
        return sum(inner[0] < 0 < inner[-1] for inner in ways if inner) / 2**n

    assert held(int(low)) >= confidence
    assert held(int(low) + 1) < confidence, "no narrower one would do"


def test_more_values_give_a_narrower_interval():
    rng = np.random.default_rng(0)
    widths = []
    for n in (10, 100, 1000):
        interval = median_interval(rng.normal(size=n), 0.95)
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths == sorted(widths, reverse=True)
