"""SNAS: a soft sample of operations in every step (Xie et al., ICLR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from nni_darts.strategies.catalogue import ConcreteSettings
from nni_darts.strategies.relaxations.sampling import Sampling
from nni_darts.strategies.settings import typed

__all__ = ['Concrete']


@typed(settings=ConcreteSettings)
class Concrete(Sampling):
    """Weights the candidates by a sample of the concrete distribution, ``Z = softmax((α + G) / τ)``.

    G is Gumbel noise. The largest entry of Z is that of operation o with probability softmax(α)_o at any temperature, and Z approaches a
    one-hot sample as τ falls. The gradient is exact for the expected loss of the mixture Z, which differs from that of a one-hot sample.

    Args:
        first, last: temperature τ at the start and at the end, with a linear decay in between.
    """

    def __init__(self, first: float = 1.0, last: float = 0.33) -> None:
        super().__init__()
        self.first = first
        self.last = last
        self.temperature = first

    def begin_step(self, progress: float) -> None:
        """Sets the temperature for a step, and draws."""
        self.temperature = self.first + (self.last - self.first) * min(max(progress, 0.0), 1.0)
        super().begin_step(progress)

    def draw(self, alpha: Tensor) -> Tensor:
        """Returns Gumbel noise (candidates,)."""
        return -torch.empty_like(alpha).exponential_().log()

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """Returns Z, or softmax(α) between steps."""
        noise = self.drawn(label)
        return self.probabilities(alpha) if noise is None else torch.softmax((alpha + noise) / self.temperature, dim=-1)
