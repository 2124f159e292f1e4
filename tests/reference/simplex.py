"""Exponentiated gradient descent with numbers of Python."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponentiated(theta: Sequence[float], gradient: Sequence[float], rate: float, least: float) -> list[float]:
    """Each entry times exp(−η·g), divided by the sum; what is below the least probability is raised to it, and the sum divided by again."""
    moved = [value * math.exp(-rate * slope) for value, slope in zip(theta, gradient)]
    moved = [max(value / sum(moved), least) for value in moved]
    return [value / sum(moved) for value in moved]
