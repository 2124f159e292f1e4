"""Shapley values of operations: what each adds to the score of a supernet, over random orders in which operations are left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nni_darts.strategies.architecture import Architecture, Mask
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.selections.sharing import SharedResults

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Contributions', 'Player', 'players_of']

Player = tuple[str, int]
"""Label of a choice, and index of one of its operations."""

_TOGETHER = 16
"""Number of variants that are scored between two tests of truncation, so that they share what they have in common."""


def players_of(architecture: Architecture, labels: Iterable[str]) -> list[Player]:
    """Returns all operations that may be chosen; ``none`` on an edge of a cell adds nothing, and is left out."""
    return [(label, index) for label in labels for index in architecture.eligible(label)]


@dataclass(frozen=True)
class Contributions:
    """Measures marginal contributions (Xiao et al., CVPR 2022).

    Args:
        scoring: how the supernet is scored.
        permutations: number of random orders.
        truncation: an order ends once the score is below this part of the whole supernet's, or the loss above the whole supernet's divided
            by it. The marginal contributions that are left count as 0. 0 completes all orders.
    """

    scoring: Scoring
    permutations: int
    truncation: float

    def values(self, architecture: Architecture, players: Sequence[Player], module: DifferentiableModule) -> dict[Player, float]:
        """Returns the value of each operation: the mean of its marginal contributions, less their standard deviation."""
        orders = [torch.randperm(len(players)).tolist() for _ in range(self.permutations)]  # torch's random state is in the checkpoint
        (whole,) = self.scores(architecture, players, [0], module)
        found = [self.marginals(architecture, [players[place] for place in order], whole, module) for order in orders]
        by_player = torch.stack(found).gather(1, torch.tensor(orders).argsort(dim=1))  # (orders, players)
        return dict(zip(players, (by_player.mean(dim=0) - by_player.std(dim=0, correction=0)).tolist()))

    def marginals(self, architecture: Architecture, order: Sequence[Player], whole: float, module: DifferentiableModule) -> Tensor:
        """Returns by how much the score falls from ``whole`` with each operation that is left out in turn: (operations,), in float64."""
        found, before = torch.zeros(len(order), dtype=torch.float64), whole
        least = self.truncation * whole if whole > 0 else whole / self.truncation if self.truncation else -math.inf
        for start in range(0, len(order), _TOGETHER):
            ends = range(start + 1, min(start + _TOGETHER, len(order)) + 1)
            for end, score in zip(ends, self.scores(architecture, order, ends, module)):
                found[end - 1], before = before - score, score
                if score < least:
                    return found
        return found

    def scores(self, architecture: Architecture, order: Sequence[Player], ends: Sequence[int], module: DifferentiableModule) -> list[float]:
        """Returns the score of the supernet without the first operations of an order, for each of several rising numbers of them.

        All choices of the order are mixed by their probabilities, even if the relaxation computes one operation at a time.
        """
        variants = [partial(architecture.viewed, mask=_masks(order, end)) for end in ends]
        differing = {label: None for label, _ in order[ends[0] : ends[-1]]}
        return self.scoring.scores(module, 'Shapley values', variants, partial(SharedResults, module.model, architecture, *differing))


def _masks(order: Sequence[Player], end: int) -> dict[str, Mask]:
    indices: dict[str, set[int]] = {label: set() for label, _ in order}
    for label, index in order[:end]:
        indices[label].add(index)
    return {label: Mask(label, frozenset(gone)) for label, gone in indices.items()}
