"""Proxies that sum over the weights of an untrained network: grad_norm, snip and synflow (Abdelfattah et al., ICLR 2021, section 3)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from nni_darts.strategies.proxies.base import Batch, logits_of, weights_of

__all__ = ['grad_norm', 'snip', 'synflow']


def grad_norm(network: nn.Module, batch: Batch) -> float:
    """Returns Σ ‖∂L/∂w‖₂ over the layers, with the cross-entropy L of the batch."""
    _differentiate_loss(network, batch)
    return sum(float(weight.grad.norm()) for weight in weights_of(network) if weight.grad is not None)


def snip(network: nn.Module, batch: Batch) -> float:
    """Returns Σ |w · ∂L/∂w|, with the cross-entropy L of the batch (Lee et al., ICLR 2019, equation 6, without its normalisation).

    The gradient of a mask of ones that multiplies w is w · ∂L/∂w, so no masks are needed.
    """
    _differentiate_loss(network, batch)
    return sum(float((weight.detach() * weight.grad).abs().sum()) for weight in weights_of(network) if weight.grad is not None)


def _differentiate_loss(network: nn.Module, batch: Batch) -> None:
    functional.cross_entropy(logits_of(network, batch.images), batch.labels).backward()


def synflow(network: nn.Module, batch: Batch) -> float:
    """Returns Σ θ · ∂R/∂θ, where R is the sum of the outputs for an image of ones (Tanaka et al., NeurIPS 2020, equation 2).

    All parameters are replaced by their absolute values first, and batch norm by the identity. Parameters are made float64 before, so
    that neither the sum of a deep network overflows nor a small contribution is lost. The buffers of batch norm do not enter, because
    batch norm does not.
    """
    _without_batch_norm(network)
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    ones = torch.ones_like(batch.images[:1], dtype=torch.float64)
    output = logits_of(network, ones).sum()
    output.backward()
    return sum(float((weight.detach() * weight.grad).abs().sum()) for weight in weights_of(network) if weight.grad is not None)


def _without_batch_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, nn.Identity())
        else:
            _without_batch_norm(child)
