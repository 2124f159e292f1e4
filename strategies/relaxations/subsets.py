"""The relaxation of a choice of several inputs: an expectation over the subsets that could be chosen."""

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
    """All subsets of ``chosen`` of the candidates; of any number but zero where ``chosen`` is None.

    Raises:
        ValueError: where there are too many to add up over.
    """
    count = 2**candidates - 1 if chosen is None else math.comb(candidates, chosen)
    if count > _MOST_SUBSETS:
        raise ValueError(f'an InputChoice of {chosen or "any number"} out of {candidates} has {count:,} outcomes: too many to relax')
    sizes = range(1, candidates + 1) if chosen is None else [chosen]
    return tuple(chain.from_iterable(combinations(range(candidates), size) for size in sizes))


def _subset_probabilities(alpha: Tensor, chosen: int | None) -> Tensor:
    """P(S) ∝ exp(Σ_{i ∈ S} α_i); the softmax where one input is chosen. α (candidates,) → (subsets,)"""
    found = subsets(alpha.numel(), chosen)
    largest = torch.finfo(alpha.dtype).max / alpha.numel()  # so that no sum becomes infinite
    scores = torch.stack([alpha.clamp(-largest, largest)[list(subset)].sum() for subset in found])
    return torch.softmax(scores, dim=0)


def subset_weights(alpha: Tensor, chosen: int | None, *, mean: bool = False) -> Tensor:
    """The expected factor of each input in the sum (or the mean) of the chosen ones: (candidates,)

    For a sum it is the input's probability of being chosen: it lies in [0, 1], and all add up to ``chosen``.
    """
    found = subsets(alpha.numel(), chosen)
    factors = [[(1.0 / len(subset) if mean else 1.0) * (index in subset) for index in range(alpha.numel())] for subset in found]
    return _subset_probabilities(alpha, chosen) @ alpha.new_tensor(factors)


def slot_weights(alpha: Tensor, chosen: int) -> Tensor:
    """The probability of each input to be the first, second, … of the chosen ones in their order: (chosen, candidates), rows add to 1."""
    found = subsets(alpha.numel(), chosen)
    member = alpha.new_tensor(
        [[[float(index == subset[slot]) for index in range(alpha.numel())] for slot in range(chosen)] for subset in found]
    )
    return torch.einsum('s,skc->kc', _subset_probabilities(alpha, chosen), member)


def best_subset(alpha: Tensor, chosen: int | None) -> list[int]:
    """The most probable subset, in order; ties keep the first."""
    found = subsets(alpha.numel(), chosen)
    values = alpha.detach().double().tolist()
    return list(max(found, key=lambda subset: sum(values[index] for index in subset)))
