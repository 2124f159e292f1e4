"""The Hessian of a loss in some tensors, whole, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def dense_hessian(loss: Callable[[], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """(n, n) for n numbers in all tensors."""
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss(), tensors, create_graph=True)])
    rows = [torch.autograd.grad(entry, tensors, retain_graph=True) for entry in gradient]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
