"""The architecture gradient through several steps of the weight optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from nni_darts import parallel
from nni_darts.strategies.architects.derivatives import gradient_of, not_finite, overflowed, saved, without_autocast
from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.architects.virtual_step import Rule, clip_coefficient, rules_of

if TYPE_CHECKING:
    from nni_darts.strategies.architects.gradient import BilevelProblem
    from nni_darts.strategies.catalogue import SecondOrderSettings

__all__ = ['unrolled_gradient']

Tensors = Sequence[Tensor]
Buffers = Sequence[Tensor | None]
"""Momentum buffers of weights; None where there is none."""


class _Moment(NamedTuple):
    """Weights and momentum buffers before a step, and the gradient, which the step multiplies by a factor to clip it."""

    weights: Tensors
    buffers: Buffers
    gradients: Tensors
    factor: Any


def unrolled_gradient(problem: BilevelProblem, settings: SecondOrderSettings, rewind: Callable[[], None]) -> list[Tensor]:
    """Returns dL_v(w_K(α), α) / dα for the weights w_K after K = ``settings.unroll`` steps of SGD on the training loss, exactly.

    Autograd differentiates the steps from the last to the first (reverse mode: Franceschi et al., ICML 2017), with Hessian-vector products
    at the weights before each step, which are computed again. So only one pass is in memory at a time, with K copies of the weights, their
    momentum buffers and gradients. Autocast is off for the training loss. Arguments and everything else as for
    :func:`.architecture_gradient`; ``rewind`` restores the buffers of the problem.
    """
    alphas, devices = list(problem.alphas), [tensor.device for tensor in (*problem.weights, *problem.alphas)]
    rate_of = {id(weight): rate for weight, rate in zip(problem.weights, problem.rates)}
    before = RandomState(devices)
    for alpha in alphas:
        alpha.requires_grad_()

    def passed(weights: Tensors, **options: Any) -> Sequence[Any]:
        rewind()
        before.restore()
        with without_autocast(devices):
            return torch.autograd.grad(problem.train_loss(), weights, **options)

    found = passed(problem.moving, allow_unused=True)
    reached = [weight for weight, gradient in zip(problem.moving, found) if gradient is not None]  # no step moves other weights
    gradients = [gradient for gradient in found if gradient is not None]
    rules, rates = rules_of(reached, problem.optimizer), [rate_of[id(weight)] for weight in reached]
    buffers: Buffers = [_momentum_buffer(problem, weight, rule) for weight, rule in zip(reached, rules)]
    moments: list[_Moment] = []
    with saved(reached):
        while len(moments) < settings.unroll:
            gradients = parallel.average(gradients if not moments else passed(reached))
            factor = clip_coefficient(gradients, settings.clip_norm).clamp(max=1.0) if isinstance(settings.clip_norm, float | int) else 1.0
            moments.append(_Moment([weight.detach().clone() for weight in reached], buffers, gradients, factor))
            with torch.no_grad():
                stepped, buffers = _step(moments[-1], rules, rates)
            _place(reached, stepped)
        rewind()
        result = parallel.average(gradient_of(problem.valid_loss(), [*alphas, *reached], problem.loss_scale))
        after_valid = RandomState(devices)
        if overflowed(result, problem.loss_scale):
            return not_finite(alphas)
        result, of_weights = result[: len(alphas)], result[len(alphas) :]
        of_buffers: Buffers = [None] * len(reached)
        for moment in reversed(moments):
            direct, of_buffers, vector = _back_through(moment, rules, rates, of_weights, of_buffers)
            _place(reached, moment.weights)
            products = parallel.average(_products(passed(reached, create_graph=True), [*alphas, *reached], vector))
            result = list(torch._foreach_add(result, products[: len(alphas)]))
            of_weights = list(torch._foreach_add(direct, products[len(alphas) :]))
    after_valid.restore()
    return result


def _momentum_buffer(problem: BilevelProblem, weight: Tensor, rule: Rule) -> Tensor | None:
    return problem.optimizer.state[weight]['momentum_buffer'] if problem.optimizer is not None and rule.started else None


@torch.no_grad()
def _place(weights: Tensors, values: Tensors) -> None:
    torch._foreach_copy_(list(weights), list(values))


def _step(moment: _Moment, rules: Sequence[Rule], rates: Sequence[float]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Returns the weights and momentum buffers after a step of SGD, as differentiable functions of the moment before it."""
    weights: list[Tensor] = []
    buffers: list[Tensor | None] = []
    for weight, buffer, gradient, rule, rate in zip(moment.weights, moment.buffers, moment.gradients, rules, rates):
        direction = (-moment.factor if rule.maximize else moment.factor) * gradient + rule.weight_decay * weight
        if rule.momentum:
            buffer = direction if buffer is None else rule.momentum * buffer + (1 - rule.dampening) * direction
            direction = direction + rule.momentum * buffer if rule.nesterov else buffer
        weights.append(weight - rate * direction)
        buffers.append(buffer)
    return weights, buffers


def _back_through(
    moment: _Moment, rules: Sequence[Rule], rates: Sequence[float], of_weights: Tensors, of_buffers: Buffers
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
    """Returns the gradients with respect to weights, buffers and gradients before a step, from those with respect to what it returns."""

    def leaves(tensors: Sequence[Any]) -> list[Any]:
        return [None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]

    with torch.enable_grad():
        start = _Moment(leaves(moment.weights), leaves(moment.buffers), leaves(moment.gradients), moment.factor)
        weights, buffers = _step(start, rules, rates)
    known = [
        (buffer, part) for buffer, part in zip(buffers, of_buffers) if buffer is not None and part is not None and buffer.requires_grad
    ]
    inputs = [*start.weights, *start.gradients, *(buffer for buffer in start.buffers if buffer is not None)]
    outputs, parts = [*weights, *(buffer for buffer, _ in known)], [*of_weights, *(part for _, part in known)]
    found = list(torch.autograd.grad(outputs, inputs, parts, allow_unused=True, materialize_grads=True))
    count = len(weights)
    remaining = iter(found[2 * count :])
    return found[:count], [None if buffer is None else next(remaining) for buffer in start.buffers], found[count : 2 * count]


def _products(gradients: Tensors, inputs: Tensors, vector: Tensors) -> list[Tensor]:
    """Returns the derivative of ``Σ gradients · vector`` with respect to inputs, with zeros where it does not depend on them."""
    pairs = [(gradient, part) for gradient, part in zip(gradients, vector) if gradient.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    outputs, parts = zip(*pairs)
    return list(torch.autograd.grad(outputs, inputs, parts, allow_unused=True, materialize_grads=True))
