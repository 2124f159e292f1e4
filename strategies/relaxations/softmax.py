"""The plain relaxations: with α that is trained, and with α that is fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from nni_darts.strategies.relaxations.base import Relaxation

__all__ = ['Fixed', 'Softmax']


class Softmax(Relaxation):
    """DARTS (Liu et al., ICLR 2019)."""


class Fixed(Relaxation):
    """Keeps α uniform, so that only the weights are trained (the baseline of Wang et al., ICLR 2021, section 4.1)."""

    trains_alpha = False

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Returns uniform probabilities, whatever α is."""
        return torch.full_like(alpha, 1.0 / alpha.numel())
