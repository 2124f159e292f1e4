"""Architecture gradients, slowly: several steps inside autograd's graph, and implicit gradients with the whole Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(weights, α) → scalar"""


def gradient_through_steps(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    steps: int,
    *,
    rates: Sequence[float],
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    buffers: Sequence[Tensor] | None = None,
    clip_norm: float | None = None,
) -> list[Tensor]:
    """Returns d/dα of L_v(w_K(α), α), where w_K(α) is what K steps of SGD make of w, all of them in one graph."""
    w: list[Tensor] = [weight.detach().clone().requires_grad_() for weight in weights]
    a = [alpha.detach().clone().requires_grad_() for alpha in alphas]
    velocity: list[Tensor | None] = [None] * len(w) if buffers is None else [buffer.detach().clone() for buffer in buffers]
    for _ in range(steps):
        gradients = torch.autograd.grad(train_loss(w, a), w, create_graph=True)
        if clip_norm is not None:
            norm = float(torch.cat([gradient.detach().flatten() for gradient in gradients]).norm())
            gradients = tuple(gradient * min(1.0, clip_norm / (norm + 1e-6)) for gradient in gradients)
        moved: list[Tensor] = []
        for index, (weight, gradient) in enumerate(zip(w, gradients)):
            direction = gradient + weight_decay * weight
            if momentum:
                before = velocity[index]
                velocity[index] = direction if before is None else momentum * before + (1 - dampening) * direction
                direction = direction + momentum * velocity[index] if nesterov else velocity[index]
            moved.append(weight - rates[index] * direction)
        w = moved
    return list(torch.autograd.grad(valid_loss(w, a), a))


def implicit_parts(
    train_loss: Loss, valid_loss: Loss, weights: Sequence[Tensor], alphas: Sequence[Tensor], weight_decay: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns ∇α L_v (a,), ∇w L_v (n,), H = ∇²ww L_t + λI (n, n) and ∇²αw L_t (a, n), for flat α and weights."""
    shapes = [tensor.shape for tensor in (*weights, *alphas)]
    sizes, count = [shape.numel() for shape in shapes], len(weights)
    start = torch.cat([tensor.detach().flatten() for tensor in (*weights, *alphas)])
    n = sum(sizes[:count])

    def of_flat(loss: Loss) -> Callable[[Tensor], Tensor]:
        def flat_loss(flat: Tensor) -> Tensor:
            parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes)]
            return loss(parts[:count], parts[count:])

        return flat_loss

    curvature = torch.autograd.functional.hessian(of_flat(train_loss), start)
    slope = torch.autograd.functional.jacobian(of_flat(valid_loss), start)
    return slope[n:], slope[:n], curvature[:n, :n] + weight_decay * torch.eye(n, dtype=start.dtype), curvature[n:, :n]
