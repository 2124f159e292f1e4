"""FairDARTS: the zero-one loss (Chu et al., ECCV 2020, equation 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nni_darts.strategies.settings import typed
from nni_darts.strategies.terms.base import Term
from nni_darts.strategies.terms.registry import ZeroOneSettings

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['ZeroOne']


@typed(settings=ZeroOneSettings)
class ZeroOne(Term):
    """``−w · mean |p − ½|^power`` over all probabilities p of all choices.

    With a sigmoid, it pushes every p towards 0 or 1; with a softmax, it pushes each choice towards one candidate. Where p = ½, its
    gradient is 0 with power 2, so the validation loss decides the direction. Unlike in the authors' code, the weights' loss does not have
    it, which it would not change.

    Args:
        weight: w, 10 as published.
        power: 2 as published, or 1 for the variant with absolute values.
    """

    def __init__(self, weight: float = 10.0, power: int = 2) -> None:
        self.weight = weight
        self.power = power

    def value(self, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """See :class:`Term`. Choices that are decided do not count."""
        labels = [label for label in architecture.operations() if label not in architecture.state.fixed]
        if not labels:
            return torch.zeros(())
        distances = torch.cat([relaxation.probabilities(architecture.alpha(label)) for label in labels]) - 0.5
        return -self.weight * (distances.square() if self.power == 2 else distances.abs()).mean()
