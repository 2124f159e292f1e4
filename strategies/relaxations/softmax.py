"""The continuous relaxation of DARTS (Liu et al., ICLR 2019, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ['Relaxation', 'Softmax']


class Relaxation(Protocol):
    """What stands in for a choice among operations while searching."""

    def probabilities(self, alpha: Tensor) -> Tensor:
        """α (candidates,) → probability of each candidate (candidates,): what a selection ranks."""
        ...

    def weights(self, alpha: Tensor) -> Tensor:
        """α (candidates,) → the factor of each candidate's output in this forward pass (candidates,)."""
        ...


@dataclass(frozen=True)
class Softmax:
    """``ō(x) = Σ_o softmax(α)_o · o(x)``."""

    def probabilities(self, alpha: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return torch.softmax(alpha, dim=-1)

    def weights(self, alpha: Tensor) -> Tensor:
        """See :class:`Relaxation`."""
        return self.probabilities(alpha)
