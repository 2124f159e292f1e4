"""Predicts the next step of the weight optimizer, and its derivative with respect to the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

__all__ = ['Rule', 'clip_coefficient', 'rules_of', 'virtual_step']


def clip_coefficient(tensors: Sequence[Tensor], max_norm: float) -> Tensor:
    """Returns ``max_norm / (norm + 1e-6)`` for the joint Euclidean norm of tensors, a scalar that is below 1 if gradients are clipped.

    Gradients are clipped by multiplying them by it if it is below 1, as in :func:`torch.nn.utils.clip_grad_norm_`.
    """
    return max_norm / (torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors)))) + 1e-6)


class Rule(NamedTuple):
    """The rule by which SGD moves a weight. ``started`` says whether the weight has a momentum buffer."""

    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    started: bool = False


def rules_of(weights: Sequence[Tensor], optimizer: Optimizer | None) -> list[Rule]:
    """Returns the rule of each weight; plain gradient descent without an optimizer.

    Raises:
        ValueError: if the optimizer is not SGD or does not have one of the weights.
    """
    if optimizer is None:
        return [Rule()] * len(weights)
    if not isinstance(optimizer, SGD):
        raise ValueError(
            f'the second-order architecture gradient mirrors torch.optim.SGD, not {type(optimizer).__name__}; train the weights with '
            'SGD, pass optimizer=None for a plain gradient step, or use order=1'
        )
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group['params']}
    rules = []
    for index, weight in enumerate(weights):
        if id(weight) not in groups:
            raise ValueError(f'weight {index} of shape {tuple(weight.shape)} is not a parameter of the optimizer')
        group = groups[id(weight)]
        started = optimizer.state.get(weight, {}).get('momentum_buffer') is not None
        momentum, dampening, weight_decay = group['momentum'], group['dampening'], group['weight_decay']
        rules.append(Rule(momentum, dampening, weight_decay, group['nesterov'], group['maximize'], started))
    return rules


@torch.no_grad()
def virtual_step(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], optimizer: Optimizer | None, rates: Sequence[float]
) -> tuple[list[Tensor], list[float]]:
    """Returns the step that SGD would take for each weight, without changing the weight.

    With momentum μ, weight decay λ and dampening τ, ``d = g + λw`` and ``b = μ·buf + (1 − τ)·d`` (``b = d`` without a buffer). The step is
    ``−ξ·b``, or ``−ξ·(d + μ·b)`` with Nesterov's momentum, which is the rule of :class:`torch.optim.SGD`.

    Args:
        weights: the parameters w.
        gradients: ∇w L_t, in the same shapes.
        optimizer: the SGD whose groups and momentum buffers are used; None for plain gradient descent.
        rates: ξ of each weight.

    Returns:
        The steps w' − w, and for each weight the factor c, which includes ξ, in ``∂(w' − w)/∂g = −c``.

    Raises:
        ValueError: if the optimizer is not SGD or does not have one of the weights.
    """
    if optimizer is None:
        return list(torch._foreach_mul(list(gradients), [-rate for rate in rates])) if gradients else [], list(rates)
    alike: dict[Rule, list[int]] = {}  # weights with the same rule are stepped together
    for index, rule in enumerate(rules_of(weights, optimizer)):
        alike.setdefault(rule, []).append(index)

    steps: list[Any] = [None] * len(weights)
    factors = [0.0] * len(weights)
    for (momentum, dampening, weight_decay, nesterov, maximize, started), indices in alike.items():
        direction = [gradients[index] for index in indices]
        if maximize:
            direction = list(torch._foreach_neg(direction))
        if weight_decay:
            direction = list(torch._foreach_add(direction, [weights[index] for index in indices], alpha=weight_decay))
        factor = -1.0 if maximize else 1.0
        if momentum:
            buffered, kept = direction, 1.0
            if started:
                kept = 1.0 - dampening
                buffers = [optimizer.state[weights[index]]['momentum_buffer'] for index in indices]
                buffered = list(torch._foreach_mul(buffers, momentum))
                torch._foreach_add_(buffered, direction, alpha=kept)
            if nesterov:
                direction = list(torch._foreach_add(direction, buffered, alpha=momentum))
                factor *= 1.0 + momentum * kept
            else:
                direction = buffered
                factor *= kept
        for index, step in zip(indices, torch._foreach_mul(direction, [-rates[index] for index in indices])):
            steps[index] = step
            factors[index] = rates[index] * factor
    return steps, factors
