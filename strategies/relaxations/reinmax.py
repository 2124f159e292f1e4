"""ReinMax: one sampled operation, with a gradient of second-order accuracy (Liu et al., NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from nni_darts.strategies.catalogue import ReinMaxSettings
from nni_darts.strategies.relaxations.sampling import Sampling, one_hot, with_gradient
from nni_darts.strategies.settings import typed

__all__ = ['ReinMax']


@typed(settings=ReinMaxSettings)
class ReinMax(Sampling):
    """Weights the candidates by a one-hot D, which is operation o with probability p_o, p = softmax(α).

    With ``m = ½·(softmax(α / τ) + D)``, the Jacobian ``J(q) = diag(q) − q·qᵀ`` of a softmax with the value q, and the gradient g with
    respect to D, the gradient of α is ``2·J(m)·g − ½·J(p)·g``. At τ = 1 its mean over D is the gradient of the expected loss, exactly, if
    the loss is a polynomial of degree two in D. All candidates are computed, because g needs the outputs of those that were not drawn.

    Args:
        temperature: τ, at least 1; a larger one reduces the variance of the gradient and adds bias.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def draw(self, alpha: Tensor) -> Tensor:
        """Returns D (candidates,)."""
        return one_hot(alpha, torch.multinomial(self.probabilities(alpha), 1))

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """Returns D, or softmax(α) between steps."""
        drawn, soft = self.drawn(label), self.probabilities(alpha)
        if drawn is None:
            return soft
        mean = 0.5 * (torch.softmax(alpha.detach() / self.temperature, dim=-1) + drawn)
        moved = torch.softmax(mean.log() + alpha - alpha.detach(), dim=-1)  # has the value m and the Jacobian J(m)
        return with_gradient(drawn, 2.0 * moved - 0.5 * soft)
