"""The second-order architecture gradient, slowly: the virtual step inside autograd's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def unrolled_gradient(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    *,
    learning_rate: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    buffers: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """d/dα of L_v(w'(α), α), where w'(α) is what one step of SGD makes of w; losses are functions of (weights, alphas)."""
    w = [weight.detach().clone().requires_grad_() for weight in weights]
    a = [alpha.detach().clone().requires_grad_() for alpha in alphas]
    gradients = torch.autograd.grad(train_loss(w, a), w, create_graph=True)
    moved = []
    for index, (weight, gradient) in enumerate(zip(w, gradients)):
        direction = gradient + weight_decay * weight
        if momentum:
            buffer = direction if buffers is None else momentum * buffers[index] + (1 - dampening) * direction
            direction = direction + momentum * buffer if nesterov else buffer
        moved.append(weight - learning_rate * direction)
    return list(torch.autograd.grad(valid_loss(moved, a), a))
