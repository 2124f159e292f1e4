"""The cross-entropy loss of a large vocabulary without a table of all its probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ['linear_cross_entropy']

_ROWS = 256
"""Number of rows computed at a time, so that their logits stay in the processor's cache and in the same memory."""


def linear_cross_entropy(inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Returns ``cross_entropy(linear(inputs, weight, bias), targets)``, the mean over rows, which is differentiable twice.

    The gradients are computed together with the loss, a few rows at a time, so that the logits of all rows never exist at once.

    Args:
        inputs: (N, units).
        weight, bias: parameters of the decoder, (classes, units) and (classes,).
        targets: (N,), whole numbers below classes.

    Returns:
        A scalar.
    """
    return _LinearCrossEntropy.apply(inputs, weight, bias, targets)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        needs_inputs, needs_weight, needs_bias, _ = context.needs_input_grad
        of_inputs = torch.empty_like(inputs) if needs_inputs else None
        of_weight = torch.zeros_like(weight) if needs_weight else None
        of_bias = torch.zeros_like(bias) if needs_bias else None
        loss = inputs.new_zeros(())
        rows = inputs.new_empty(min(_ROWS, len(inputs)), len(weight))
        for start in range(0, len(inputs), _ROWS):
            some, right = inputs[start : start + _ROWS], targets[start : start + _ROWS, None]
            logits = torch.addmm(bias, some, weight.T, out=rows[: len(some)])
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            loss += (normaliser - logits.gather(1, right)).sum()
            if not any(context.needs_input_grad):
                continue
            slopes = logits.sub_(normaliser).exp_()  # softmax − one-hot: the derivative with respect to the logits
            slopes.scatter_add_(1, right, slopes.new_full((1, 1), -1).expand_as(right)).div_(len(inputs))
            if of_inputs is not None:
                torch.mm(slopes, weight, out=of_inputs[start : start + _ROWS])
            if of_weight is not None:
                of_weight.addmm_(slopes.T, some)
            if of_bias is not None:
                of_bias += slopes.sum(dim=0)
        context.save_for_backward(inputs, weight, bias, targets, of_inputs, of_weight, of_bias)
        return loss / len(inputs)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _Scaled.apply(*gradients, *context.saved_tensors)


class _Scaled(torch.autograd.Function):
    """Multiplies the gradients by that of the loss. Its own derivative, which only exact Hessians need, is autograd's on all logits."""

    @staticmethod
    def forward(
        context: Any, gradient: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, *slopes: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        context.save_for_backward(gradient, inputs, weight, bias, targets)
        return *(None if slope is None else slope * gradient for slope in slopes), None

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, targets = context.saved_tensors
        with torch.enable_grad():
            gradient, *inputs = (tensor.detach().requires_grad_() for tensor in tensors)
            loss = functional.cross_entropy(functional.linear(*inputs), targets)
            first = torch.autograd.grad(loss, inputs, gradient, create_graph=True)
            values, others = zip(*((value, other) for value, other in zip(first, gradients) if other is not None))
            second = torch.autograd.grad(values, [gradient, *inputs], others, allow_unused=True)
        return *second, None, None, None, None
