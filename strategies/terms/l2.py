"""RobustDARTS: a stronger weight decay of the supernet (Zela et al., ICLR 2020, section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from nni_darts.strategies.settings import typed
from nni_darts.strategies.terms.base import StepTerm
from nni_darts.strategies.terms.registry import WeightDecaySettings

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['WeightDecay']


@typed(settings=WeightDecaySettings)
class WeightDecay(StepTerm):
    """Sets the weight decay of the weights' optimizer, which the virtual step of second-order DARTS mirrors.

    Args:
        value: L2 penalty on the weights. The authors search with 3e-4 · 3^k up to 243e-4 and keep the best cell by validation.
    """

    def __init__(self, value: float = 81e-4) -> None:
        self.value = value

    def begin(self, architecture: Architecture, model: nn.Module, optimizer: Optimizer) -> None:
        """See :class:`StepTerm`."""
        for group in optimizer.param_groups:
            group['weight_decay'] = self.value
