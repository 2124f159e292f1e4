"""The relaxation of a choice of several inputs: an expectation over the possible subsets."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain, combinations

import torch
from torch import Tensor

__all__ = ['best_subset', 'slot_weights', 'subset_weights', 'subsets']

_MOST_SUBSETS = 20_000


@lru_cache(maxsize=64)
def subsets(candidates: int, chosen: int | None) -> tuple[tuple[int, ...], ...]:
    """Returns all subsets of ``chosen`` of the candidates; all non-empty subsets if ``chosen`` is None.

    Raises:
        ValueError: if there are too many subsets to sum over.
    """
    count = 2**candidates - 1 if chosen is None else math.comb(candidates, chosen)
    if count > _MOST_SUBSETS:
        raise ValueError(f'an InputChoice of {chosen or "any number"} out of {candidates} has {count:,} outcomes: too many to relax')
    sizes = range(1, candidates + 1) if chosen is None else [chosen]
    return tuple(chain.from_iterable(combinations(range(candidates), size) for size in sizes))


def _subset_probabilities(alpha: Tensor, chosen: int | None) -> Tensor:
    """Returns P(S) ∝ exp(Σ_{i ∈ S} α_i), (subsets,), for α (candidates,); this is the softmax if one input is chosen."""
    found = subsets(alpha.numel(), chosen)
    largest = torch.finfo(alpha.dtype).max / alpha.numel()  # so that no sum is infinite
    scores = torch.stack([alpha.clamp(-largest, largest)[list(subset)].sum() for subset in found])
    return torch.softmax(scores, dim=0)


def subset_weights(alpha: Tensor, chosen: int | None, *, mean: bool = False) -> Tensor:
    """Returns the expected factor of each input in the sum, or the mean, of the chosen inputs: (candidates,).

    For a sum, it is the probability that the input is chosen; it is in [0, 1], and the factors add up to ``chosen``.
    """
    found = subsets(alpha.numel(), chosen)
    factors = [[(1.0 / len(subset) if mean else 1.0) * (index in subset) for index in range(alpha.numel())] for subset in found]
    return _subset_probabilities(alpha, chosen) @ alpha.new_tensor(factors)


def slot_weights(alpha: Tensor, chosen: int) -> Tensor:
    """Returns the probability of each input to be the first, second, … chosen input in order: (chosen, candidates), rows add up to 1."""
    found = subsets(alpha.numel(), chosen)
    member = alpha.new_tensor(
        [[[float(index == subset[slot]) for index in range(alpha.numel())] for slot in range(chosen)] for subset in found]
    )
    return torch.einsum('s,skc->kc', _subset_probabilities(alpha, chosen), member)


def best_subset(alpha: Tensor, chosen: int | None) -> list[int]:
    """Returns the most probable subset, in order; in a tie, the first."""
    found = subsets(alpha.numel(), chosen)
    values = alpha.detach().double().tolist()
    return list(max(found, key=lambda subset: sum(values[index] for index in subset)))
