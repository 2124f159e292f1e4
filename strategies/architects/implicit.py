"""The implicit architecture gradient, with a Neumann series for the inverse Hessian (iDARTS: Zhang et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nni_darts import parallel
from nni_darts.strategies.architects.derivatives import gradient_of, not_finite, overflowed, without_autocast
from nni_darts.strategies.architects.virtual_step import rules_of

if TYPE_CHECKING:
    from nni_darts.strategies.architects.gradient import BilevelProblem

__all__ = ['implicit_gradient']


def implicit_gradient(problem: BilevelProblem, terms: int, rewind: Callable[[], None]) -> list[Tensor]:
    """Returns ``∇α L_v − ∇²αw L_t · η·Σ_{k ≤ K} (I − η·H)^k ∇w L_v`` at the present weights and α, for K = ``terms``.

    η is the learning rate of the weights, and H = ∇²ww L_t plus the weight decay, so the series approaches ``H⁻¹ ∇w L_v``, and the result
    the derivative of L_v at the minimum of the regularised training loss, if the weights are at that minimum and η times the largest
    eigenvalue of H is below 2. At such a minimum, K = 0 is second-order DARTS with ξ = η. Momentum does not matter: it does not move a
    minimum. All products are exact, of one pass over the training batch, for which autocast is off.

    Args:
        problem: see :func:`.architecture_gradient`.
        terms: K.
        rewind: restores the buffers of the problem.
    """
    alphas, devices = list(problem.alphas), [tensor.device for tensor in (*problem.weights, *problem.alphas)]
    weights = problem.moving
    rules = rules_of(weights, problem.optimizer)
    rate_of = {id(weight): rate for weight, rate in zip(problem.weights, problem.rates)}
    rates = [rate_of[id(weight)] for weight in weights]
    for alpha in alphas:
        alpha.requires_grad_()
    result = parallel.average(gradient_of(problem.valid_loss(), [*alphas, *weights], problem.loss_scale))
    if overflowed(result, problem.loss_scale):
        return not_finite(alphas)
    result, power = result[: len(alphas)], result[len(alphas) :]
    rewind()
    with without_autocast(devices):
        found = torch.autograd.grad(problem.train_loss(), weights, create_graph=True, allow_unused=True)
        outputs = {index: gradient for index, gradient in enumerate(found) if gradient is not None and gradient.requires_grad}

        def product(inputs: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
            """Returns the derivative of ∇w L_t · vector with respect to inputs."""
            if not outputs:
                return [torch.zeros_like(tensor) for tensor in inputs]
            parts = [-vector[index] if rules[index].maximize else vector[index] for index in outputs]
            options = {'retain_graph': True, 'allow_unused': True, 'materialize_grads': True}
            return parallel.average(torch.autograd.grad(list(outputs.values()), inputs, parts, **options))

        total = power
        for _ in range(terms):
            decayed = torch._foreach_mul(power, [rule.weight_decay for rule in rules])
            curved = torch._foreach_add(product(weights, power), decayed)
            power = list(torch._foreach_sub(power, torch._foreach_mul(curved, rates)))
            total = list(torch._foreach_add(total, power))
        mixed = product(alphas, list(torch._foreach_mul(total, rates)))
    return list(torch._foreach_sub(result, mixed))
