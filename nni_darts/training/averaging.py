"""Averaged SGD (Polyak & Juditsky, 1992): SGD continues unchanged, and the mean of the weights along its path is evaluated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ['AveragedWeights']


# Lightning's WeightAveraging copies the whole module from the first step, validates its initial weights until the first update, and
# changes the checkpoint: an average that begins in the middle of a training would override every hook of it but one.
class AveragedWeights:
    """The mean of a model's parameters over steps; as ``torch.optim.ASGD`` with ``lambd=0, t0=0`` keeps it.

    Args:
        model: whose parameters are averaged; before the first :meth:`update` the mean is what they are now.
    """

    def __init__(self, model: nn.Module) -> None:
        self._means = [parameter.detach().clone() for parameter in model.parameters()]
        self._steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the parameters after a step: mean ← mean + (w − mean) / steps."""
        self._steps += 1
        self._means = [mean.to(parameter.device) for mean, parameter in zip(self._means, model.parameters())]  # after a checkpoint
        torch._foreach_lerp_(self._means, list(model.parameters()), 1.0 / self._steps)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchanges parameters and means; the same call again puts both back."""
        for mean, parameter in zip(self._means, model.parameters()):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {'means': self._means, 'steps': self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's."""
        self._steps = state['steps']
        with torch.no_grad():
            torch._foreach_copy_(self._means, state['means'])
