"""OLES' score of an operation, column by column."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def mean_cosine(kept: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Returns the mean over parameters of the mean over columns of the cosine along the first dimension; 0 for a column of zeros."""
    means = []
    for one, two in zip(kept, other):
        columns = list(zip(one.flatten(1).T, two.flatten(1).T))
        cosines = [float(a @ b) / float(a.norm() * b.norm()) if a.any() and b.any() else 0.0 for a, b in columns]
        means.append(sum(cosines) / len(cosines))
    return sum(means) / len(means)
