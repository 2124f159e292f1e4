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
    clip_norm: float | None = None,
) -> list[Tensor]:
    """d/dα of L_v(w'(α), α), where w'(α) is what one step of SGD makes of w; losses are functions of (weights, alphas).

    Args:
        clip_norm: clip ∇w L_t to this norm in the step; the coefficient is a constant to autograd.
    """
    w = [weight.detach().clone().requires_grad_() for weight in weights]
    a = [alpha.detach().clone().requires_grad_() for alpha in alphas]
    gradients = torch.autograd.grad(train_loss(w, a), w, create_graph=True)
    if clip_norm is not None:
        norm = float(torch.cat([gradient.detach().flatten() for gradient in gradients]).norm())
        gradients = [gradient * min(1.0, clip_norm / (norm + 1e-6)) for gradient in gradients]
    moved = []
    for index, (weight, gradient) in enumerate(zip(w, gradients)):
        direction = gradient + weight_decay * weight
        if momentum:
            buffer = direction if buffers is None else momentum * buffers[index] + (1 - dampening) * direction
            direction = direction + momentum * buffer if nesterov else buffer
        moved.append(weight - learning_rate * direction)
    return list(torch.autograd.grad(valid_loss(moved, a), a))


def published_clipped_gradient(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    clip_norm: float = 0.25,
) -> list[Tensor]:
    """The formula of the authors' recurrent architect, with the exact product: ``dα − ξ·k·∇²αw L_t·clip(v)``, k not capped at 1.

    All weights make the virtual step; in the authors' code a tied embedding does not.
    """
    w = [weight.detach().clone().requires_grad_() for weight in weights]
    a = [alpha.detach().clone().requires_grad_() for alpha in alphas]

    def clip(gradients: Sequence[Tensor]) -> tuple[list[Tensor], float]:
        squares = sum(float(gradient.detach().square().sum()) for gradient in gradients)
        coefficient = clip_norm / (squares**0.5 + 1e-6)
        return [gradient.detach() * (coefficient if coefficient < 1 else 1.0) for gradient in gradients], coefficient

    gradients = torch.autograd.grad(train_loss(w, a), w, create_graph=True)
    clipped, coefficient = clip(gradients)
    moved = [(x - learning_rate * (g + weight_decay * x)).detach().requires_grad_() for x, g in zip(w, clipped)]
    direct = torch.autograd.grad(valid_loss(moved, a), [*a, *moved])
    vector, _ = clip(direct[len(a) :])
    product = torch.autograd.grad(gradients, a, grad_outputs=vector)
    return [d - learning_rate * coefficient * p for d, p in zip(direct, product)]
