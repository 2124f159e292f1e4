"""Gradients for architects: scaled losses, and passes after which everything is as before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

__all__ = ['gradient_of', 'not_finite', 'overflowed', 'require_grad', 'saved', 'scaled', 'unchanged', 'unscaled', 'without_autocast']


def gradient_of(loss: Tensor, inputs: Sequence[Tensor], loss_scale: float = 1.0) -> list[Tensor]:
    """Returns the gradient of a scalar, with zeros for inputs on which it does not depend. ``.grad`` does not change.

    Args:
        loss: the scalar.
        inputs: tensors with respect to which it is differentiated.
        loss_scale: factor by which the loss is multiplied before differentiation, and the gradient divided afterwards.
    """
    if loss.numel() != 1:
        raise ValueError(f'a loss must be a scalar, not of shape {tuple(loss.shape)}')
    value = scaled(loss, loss_scale)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True) if loss.requires_grad else [None] * len(inputs)
    dense = [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in zip(gradients, inputs)]
    return unscaled(dense, loss_scale)


@contextmanager
def without_autocast(devices: Iterable[torch.device]) -> Iterator[None]:
    """Turns autocast off within the block."""
    with ExitStack() as stack:
        for kind in {device.type for device in devices}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def scaled(loss: Tensor, loss_scale: float) -> Tensor:
    """Returns a loss times its scale."""
    return loss if loss_scale == 1 else loss_scale * loss


def unscaled(gradients: Sequence[Tensor], loss_scale: float) -> list[Tensor]:
    """Returns gradients divided by the scale of their loss."""
    return list(gradients) if loss_scale == 1 else list(torch._foreach_div(list(gradients), loss_scale))


def require_grad(tensors: Sequence[Tensor], value: bool) -> None:
    """Sets ``requires_grad`` of tensors."""
    for tensor in tensors:
        tensor.requires_grad_(value)


@contextmanager
def saved(tensors: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
    """Yields a function that restores the present values, which is also called when the block ends."""
    tensors = list(tensors)
    with torch.no_grad():
        copies = [torch.empty_like(tensor) for tensor in tensors]
        if copies:
            torch._foreach_copy_(copies, tensors)

    def restore() -> None:
        if copies:
            with torch.no_grad():
                torch._foreach_copy_(tensors, copies)

    try:
        yield restore
    finally:
        restore()


@contextmanager
def unchanged(leaves: Sequence[Tensor], buffers: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
    """Yields a function that restores the buffers. When the block ends, restores the buffers and ``requires_grad`` of the leaves."""
    flags = [leaf.requires_grad for leaf in leaves]
    try:
        with saved(buffers) as rewind:
            yield rewind
    finally:
        for leaf, flag in zip(leaves, flags):
            leaf.requires_grad_(flag)


def overflowed(gradients: Sequence[Tensor], loss_scale: float) -> bool:
    """Returns whether gradients of a scaled loss are not all finite."""
    return loss_scale != 1 and not bool(torch.isfinite(torch.stack(torch._foreach_norm(list(gradients)))).all())


def not_finite(alphas: Sequence[Tensor]) -> list[Tensor]:
    """Returns a gradient that makes the scaler of float16 skip the step."""
    return [torch.full_like(alpha, math.nan) for alpha in alphas]
