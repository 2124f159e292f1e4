"""β-DARTS: the logsumexp of α as a regularisation (Ye et al., CVPR 2022, equation 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nni_darts.strategies.settings import typed
from nni_darts.strategies.terms.base import Term
from nni_darts.strategies.terms.registry import BetaSettings

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['Beta']


@typed(settings=BetaSettings)
class Beta(Term):
    """``λ·e/E · mean over choices of log Σ_o exp(α_o)`` in epoch e (from 0) of a search of E epochs.

    The gradient is softmax(α) divided by the number of choices, so the largest α shrinks the most. The mean is over the choices of all
    kinds of cells; the authors' code takes a single table of α, as in NAS-Bench-201, and fails with two. As there, Adam's weight decay
    remains. While a selection fine-tunes, the weight is λ. The term is a part of the validation loss of every architect; the authors'
    second-order path lacks it.

    Args:
        weight: λ, 50 as published.
    """

    def __init__(self, weight: float = 50.0) -> None:
        self.weight = weight

    def value(self, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """See :class:`Term`. Choices that are decided do not count."""
        labels = [label for label in architecture.operations() if label not in architecture.state.fixed]
        if not labels:
            return torch.zeros(())
        terms = torch.stack([torch.logsumexp(architecture.alpha(label), dim=0) for label in labels])
        return self.weight * min(moment.elapsed, 1.0) * terms.mean()
