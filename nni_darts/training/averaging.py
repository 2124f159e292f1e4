"""Averaged SGD (Polyak & Juditsky, 1992): SGD continues unchanged, and the mean of its iterates is evaluated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ['AveragedWeights']


# Lightning's WeightAveraging copies the whole module before the first step, validates its initial weights until the first update, and
# changes the checkpoint. An average that begins in the middle of a training would have to override all but one of its hooks.
class AveragedWeights:
    """The mean of a model's parameters over steps, as ``torch.optim.ASGD`` with ``lambd=0, t0=0`` computes it.

    Args:
        model: model whose parameters are averaged; before the first :meth:`update` the means are its present parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        self._means = [parameter.detach().clone() for parameter in model.parameters()]
        self._steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Adds the parameters after a step to the mean: mean ← mean + (w − mean) / steps."""
        self._steps += 1
        self._means = [mean.to(parameter.device) for mean, parameter in zip(self._means, model.parameters())]  # after a restore
        torch._foreach_lerp_(self._means, list(model.parameters()), 1.0 / self._steps)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchanges parameters and means; a second call restores both."""
        for mean, parameter in zip(self._means, model.parameters()):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {'means': self._means, 'steps': self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        self._steps = state['steps']
        with torch.no_grad():
            torch._foreach_copy_(self._means, state['means'])
