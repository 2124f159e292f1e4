"""The mean of a few results and its uncertainty. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ['CONFIDENCE', 'Spread', 'accuracy_interval', 'spread']

CONFIDENCE = 0.95
"""Confidence level of the intervals of means and accuracies."""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a few numbers.

    Attributes:
        n: number of numbers.
        mean: their mean.
        sd: their sample standard deviation; None for a single number.
        low, high: 95 % confidence interval of the mean by Student's t; None for a single number.

    Example:
        >>> spread([1.0, 3.0]).mean
        2.0
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def spread(values: Sequence[float]) -> Spread | None:
    """Returns the mean, sample standard deviation and 95 % t interval of the mean, mean ± t(0.975, n − 1) · sd / √n; None without numbers.

    Args:
        values: one result for each seed or run.
    """
    if not values:
        return None
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Spread(n, mean)
    from scipy.stats import t  # imported here because it is slow and most commands need no interval

    deviation = statistics.stdev(values)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return Spread(n, mean, deviation, mean - half, mean + half)


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Returns Wilson's 95 % confidence interval of an accuracy.

    Args:
        accuracy: from 0 to 1.
        images: number of images on which it was measured.
    """
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * images), images).proportion_ci(CONFIDENCE, method='wilson')
    return float(interval.low), float(interval.high)
