"""Gradients of sampled relaxations, slowly: sums over all outcomes instead of one draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
"""Weights of the candidates (candidates,) → scalar."""


def expectation(alpha: Tensor, objective: Objective) -> Tensor:
    """Returns E[f(D)] for a one-hot D that is operation o with probability softmax(α)_o, by enumeration."""
    probabilities = torch.softmax(alpha, 0)
    return torch.stack([p * objective(row) for p, row in zip(probabilities, torch.eye(len(alpha), dtype=alpha.dtype))]).sum()


def gradient_of_expectation(alpha: Tensor, objective: Objective) -> Tensor:
    """Returns ∂E[f(D)]/∂α, which an unbiased estimator has as its mean."""
    a = alpha.detach().clone().requires_grad_()
    return torch.autograd.grad(expectation(a, objective), a)[0]


def jacobian_product(q: Tensor, g: Tensor) -> Tensor:
    """Returns J(q)·g for the Jacobian of a softmax with the value q, entry by entry: ``Σ_j g_j q_j (δ_ij − q_i)``."""
    rows = []
    for i in range(len(q)):
        rows.append(sum(float(g[j]) * float(q[j]) * (float(i == j) - float(q[i])) for j in range(len(q))))
    return torch.tensor(rows, dtype=q.dtype)


def reinmax_gradient(alpha: Tensor, drawn: int, g: Tensor, temperature: float) -> Tensor:
    """Returns ``2·J(m)·g − ½·J(p)·g`` with ``m = ½·(softmax(α / τ) + D)`` and the gradient g with respect to D."""
    alpha = alpha.detach()
    m = 0.5 * (torch.softmax(alpha / temperature, 0) + torch.eye(len(alpha), dtype=alpha.dtype)[drawn])
    return 2 * jacobian_product(m, g) - 0.5 * jacobian_product(torch.softmax(alpha, 0), g)


def straight_through_gradient(alpha: Tensor, g: Tensor) -> Tensor:
    """Returns J(p)·g."""
    return jacobian_product(torch.softmax(alpha.detach(), 0), g)


def concrete_pair_expectation(alpha: Tensor, objective: Objective, temperature: float, points: int = 20_000) -> Tensor:
    """Returns E[f(Z)] for Z = softmax((α + G) / τ) of two operations: a mean over quantiles of G_1 − G_2, which is logistic."""
    quantiles = (torch.arange(points, dtype=alpha.dtype) + 0.5) / points
    first = torch.sigmoid((alpha[0] - alpha[1] + torch.logit(quantiles)) / temperature)
    return torch.stack([objective(torch.stack([z, 1 - z])) for z in first]).mean()


def single_level_steps(
    loss: Callable[[Sequence[Tensor], Sequence[Tensor], int], Tensor],
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    steps: int,
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Takes steps of α and the weights along the gradients of one loss at the same point: (weights, α, step) → scalar."""
    for step in range(steps):
        tensors = [*weights, *alphas]
        gradients = torch.autograd.grad(loss(weights, alphas, step), tensors, allow_unused=True)
        for tensor, gradient in zip(tensors, gradients):
            tensor.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
