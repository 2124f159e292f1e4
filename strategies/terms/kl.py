"""DrNAS: the divergence of Dirichlet distributions from the uniform one (Chen et al., ICLR 2021, section 3.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from nni_darts.strategies.settings import typed
from nni_darts.strategies.terms.base import Term
from nni_darts.strategies.terms.registry import KlSettings

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['Kl', 'divergence_from_uniform']


def divergence_from_uniform(concentration: Tensor) -> Tensor:
    """Returns KL(Dir(β) ‖ Dir(1)), a scalar, for the concentration β (candidates,).

    With n candidates, ψ the digamma function and B = Σ β, it is ``lnΓ(B) − Σ lnΓ(β_i) − lnΓ(n) + Σ (β_i − 1)(ψ(β_i) − ψ(B))``.
    """
    total = concentration.sum()
    logs = torch.lgamma(total) - torch.lgamma(concentration).sum() - math.lgamma(len(concentration))
    return logs + ((concentration - 1) * (torch.digamma(concentration) - torch.digamma(total))).sum()


@typed(settings=KlSettings)
class Kl(Term):
    """``w · Σ over choices of KL(Dir(elu(α) + 1) ‖ Dir(1))``, which draws α to 0.

    It depends on α only, so every relaxation may have it. The divergence is computed choice by choice and summed.

    Args:
        weight: w, 1e-3 as published.
    """

    def __init__(self, weight: float = 1e-3) -> None:
        self.weight = weight

    def value(self, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """See :class:`Term`. Choices that are decided do not count."""
        labels = [label for label in architecture.operations() if label not in architecture.state.fixed]
        divergences = [divergence_from_uniform(functional.elu(architecture.alpha(label)) + 1) for label in labels]
        return self.weight * sum(divergences, torch.zeros(()))
