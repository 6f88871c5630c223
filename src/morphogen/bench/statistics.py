"""Medians and quartiles, and the interval that holds a true median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb, log2

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.float64]

# A 99th percentile is the value that a hundredth exceed: of fewer values it would be the largest.
_LEAST_FOR_P99 = 100


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some values.

    Attributes
    ----------
    low, median, high : float
        The first quartile, the median, the third quartile.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Values) -> Spread:
        """The middle of at least one value."""
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        return cls(low, median, high)

    @classmethod
    def of_ratio(cls, values: Values, base: Values) -> Spread:
        """The middle of the ratios of each value to the base of the same round."""
        return cls.of(np.asarray(values, dtype=np.float64) / np.asarray(base, dtype=np.float64))

    @property
    def relative(self) -> float:
        """Distance of the quartiles, relative to the median."""
        return (self.high - self.low) / self.median


def p99(values: Values) -> float | None:
    """The 99th percentile; None of fewer than 100 values, which have none.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    float or None
    """
    return float(np.percentile(values, 99)) if len(values) >= _LEAST_FOR_P99 else None


def median_interval(values: Values, confidence: float) -> tuple[float, float] | None:
    """An interval that holds the true median for any distribution of the values.

    Parameters
    ----------
    values : sequence of float
        Independent, from one distribution.
    confidence : float
        The least probability with which the interval holds it, below 1.

    Returns
    -------
    tuple of (float, float) or None
        Two of the values. None if there are fewer than `fewest_values`.

    Notes
    -----
    By order statistics: a value is below the median as often as a coin shows heads, so that the
    j + 1 smallest of n hold the median out with the chance of at most j heads in n throws. Nothing
    is drawn at random: the same values give the same interval.
    """
    n = len(values)
    tail = (1 - confidence) / 2
    dropped, chance = -1, 0.0
    while dropped + 1 < n:
        chance += comb(n, dropped + 1) / 2**n
        if chance > tail:
            break
        dropped += 1
    if dropped < 0:
        return None
    ordered = sorted(float(value) for value in values)
    return ordered[dropped], ordered[n - 1 - dropped]


def fewest_values(confidence: float) -> int:
    """The least number of values that `median_interval` needs.

    Parameters
    ----------
    confidence : float

    Returns
    -------
    int
    """
    return ceil(log2(2 / (1 - confidence)))
