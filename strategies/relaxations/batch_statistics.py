"""Validation of supernets that compute one path at a time, whose running statistics would mix those of all paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ['batch_statistics']


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Makes batch norms in evaluation mode use the statistics of the batch within the block, and keeps their running statistics."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.momentum = True, 0.0  # keeps the running statistics unchanged
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts):
            norm.training, norm.momentum = False, momentum
            if count is not None:
                norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
