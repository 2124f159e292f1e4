"""SGAS' edge scores, written from the equations (Li et al., CVPR 2020, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def softmax(alpha: Sequence[float]) -> list[float]:
    total = sum(math.exp(a) for a in alpha)
    return [math.exp(a) / total for a in alpha]


def distribution(alpha: Sequence[float]) -> list[float]:
    """Of the operations other than the first, ``none``."""
    p = softmax(alpha)[1:]
    return [value / sum(p) for value in p]


def scaled(values: Sequence[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def scores(alphas: Sequence[Sequence[float]], past: Sequence[Sequence[Sequence[float]]], criterion: int) -> list[float]:
    """One score for each edge; ``past`` holds the α of earlier epochs."""
    importance = [1 - softmax(alpha)[0] for alpha in alphas]
    certainty, stability = [], []
    for edge, alpha in enumerate(alphas):
        p = distribution(alpha)
        entropy = -sum(value * math.log(value) for value in p)
        certainty.append(1 - entropy / math.log(len(p)))
        overlaps = [sum(min(a, b) for a, b in zip(p, distribution(epoch[edge]))) for epoch in past]
        stability.append(sum(overlaps) / len(overlaps))
    factors = [scaled(importance), scaled(certainty)] + ([scaled(stability)] if criterion == 2 else [])
    return [math.prod(values) for values in zip(*factors)]
