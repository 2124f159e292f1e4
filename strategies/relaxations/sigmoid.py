"""FairDARTS: independent weights of the candidates (Chu et al., ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from nni_darts.strategies.relaxations.base import Relaxation

__all__ = ['Sigmoid']


class Sigmoid(Relaxation):
    """``ō(x) = Σ_o σ(α_o) · o(x)``: each candidate has a weight of its own, so that candidates do not compete (equation 3)."""

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Returns σ(α), which need not add up to 1."""
        return torch.sigmoid(alpha)
