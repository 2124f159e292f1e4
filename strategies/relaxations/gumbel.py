"""GDAS: one sampled operation at a time (Dong & Yang, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.strategies.catalogue import GumbelSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Mask

__all__ = ['Gumbel']


@typed(settings=GumbelSettings)
class Gumbel(Relaxation):
    """Each edge draws one operation from ``softmax((α + gumbel) / τ)`` and computes only this operation.

    The output is multiplied by ``1 + p − p.detach()``, which has the value one and gives α the gradient of the drawn probability p. The
    authors' code adds a term for each operation that was not drawn, whose gradient is unrelated to that operation; it is left out here.
    All cells of a kind share the draw of a pass.

    Args:
        first, last: temperature τ at the start and at the end, with a linear decay in between.
    """

    def __init__(self, first: float = 10.0, last: float = 0.1) -> None:
        self.first = first
        self.last = last
        self.temperature = first
        self._draws: dict[str, tuple[set[int], Tensor, int]] = {}

    def mix(self, label: str, alpha: Tensor, candidates: Sequence[nn.Module], args: Any, kwargs: Any, mask: Mask | None = None) -> Tensor:
        """Returns the output of the drawn candidate; in evaluation, of the most probable one. A masked candidate is left out."""
        if mask is not None:
            return super().mix(label, alpha, candidates, args, kwargs, mask)
        if not torch.is_grad_enabled():
            return candidates[int(alpha.argmax())](*args, **kwargs)
        soft, index = self._draw(label, alpha, id(candidates[0]))
        return (1.0 + soft[index] - soft[index].detach()) * candidates[index](*args, **kwargs)

    def value_weights(self, label: str, alpha: Tensor, place: int, mask: Mask | None = None) -> Tensor:
        """See :class:`Relaxation`: one-hot at the drawn value, or at the most probable one while evaluating."""
        if mask is not None:
            return super().value_weights(label, alpha, place, mask)
        if not torch.is_grad_enabled():
            return torch.zeros_like(alpha).scatter(0, alpha.argmax(dim=0, keepdim=True), 1.0)
        soft, index = self._draw(label, alpha, place)
        drawn = torch.zeros_like(soft).scatter(0, torch.tensor([index], device=soft.device), 1.0)
        return drawn * (1.0 + soft - soft.detach())

    def _draw(self, label: str, alpha: Tensor, place: int) -> tuple[Tensor, int]:
        """Returns the draw of this pass for a label. A second request from the same place in the network begins a new pass."""
        if label not in self._draws or place in self._draws[label][0]:
            noise = -torch.empty_like(alpha).exponential_().log()
            parallel.broadcast([noise])  # operations that draw noise draw amounts that depend on the size of their part of the batch
            soft = torch.softmax((alpha.log_softmax(-1) + noise) / self.temperature, dim=-1)
            self._draws[label] = set(), soft, int(soft.argmax())
        places, soft, index = self._draws[label]
        places.add(place)
        return soft, index

    def begin_step(self, progress: float) -> None:
        """Sets the temperature for a step."""
        self.temperature = self.first + (self.last - self.first) * min(max(progress, 0.0), 1.0)
