"""The axis of a drawing: positions of values, round numbers along it, and their labels. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

__all__ = ['Axis', 'short', 'ticks']

_MOST_DECIMALS = 5


class Axis:
    """Maps a range of values to positions in a drawing.

    Args:
        values: the values that the axis must cover, at least one. If all are equal, the axis extends by a tenth,
            upwards only, or in both directions if there is a margin.
        start: position of the smallest value, in units of the drawing.
        end: position of the largest value, in units of the drawing.
        margin: free space at both ends, as a fraction of the range.
        whole: whether the labels are whole numbers only.

    Example:
        ``Axis([0.0, 10.0], 50, 250)(5.0)`` is ``150.0``.
    """

    def __init__(self, values: Sequence[float], start: float, end: float, *, margin: float = 0.0, whole: bool = False) -> None:
        low, high = min(values), max(values)
        if low == high:
            reach = abs(low) * 0.1 or 1.0
            low, high = (low - reach / 2, high + reach / 2) if margin else (low, low + reach)
        spare = margin * (high - low)
        self.low, self.high, self.start, self.end = low - spare, high + spare, start, end
        self.ticks = ticks(self.low, self.high, whole=whole)

    def __call__(self, value: float) -> float:
        """Returns the position of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """Returns the labels of the ticks, with as many decimals as the step between ticks needs."""
        step = min((abs(two - one) for one, two in pairwise(self.ticks)), default=0.0) or abs(next(iter(self.ticks), 0.0)) or 1.0
        decimals = math.ceil(-math.log10(step) - 1e-9)
        if decimals > _MOST_DECIMALS or max(map(abs, self.ticks), default=0.0) >= 1e6:
            return [short(value) for value in self.ticks]
        return [f'{value:.{max(0, decimals)}f}' for value in self.ticks]


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Returns about four to nine round numbers from low to high, or fewer if they must be whole numbers."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) < 8)
    step = max(1, step) if whole else step
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(value: float) -> str:
    """Returns a number with k, M or G in place of its zeros."""
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:.4g}{letter}'
    return f'{value:.4g}'
