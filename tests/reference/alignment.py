"""Λ-DARTS, slowly: the mean cosine of layers' gradients, differentiated by autograd through gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def mean_cosine(gradients: Sequence[Tensor]) -> Tensor:
    """Returns Λ: the mean over pairs of layers of ⟨g, h⟩ / (‖g‖ ‖h‖)."""
    pairs = [(one, other) for one in range(len(gradients)) for other in range(one)]
    cosines = [gradients[a] @ gradients[b] / (gradients[a].norm() * gradients[b].norm()) for a, b in pairs]
    return torch.stack(cosines).mean()


def regularised_gradient(
    loss: Callable[[list[Tensor]], Tensor], weights: list[Tensor], p: Tensor, layers: int, weight: float
) -> list[Tensor]:
    """Returns ∇w (L − λΛ) exactly, where every layer has its own copy of p."""
    copies = [p.detach().clone().requires_grad_() for _ in range(layers)]
    value = loss(copies)
    gradients = torch.autograd.grad(value, copies, create_graph=True)
    return list(torch.autograd.grad(value - weight * mean_cosine(gradients), weights))
