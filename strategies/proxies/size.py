"""The size of a network as a proxy of its accuracy: strong baselines for all other proxies."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_darts.strategies.proxies.base import Batch

__all__ = ['multiply_adds', 'parameters']


def parameters(network: nn.Module, batch: Batch) -> float:
    """Returns the number of trainable parameters."""
    return float(sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad))


def multiply_adds(network: nn.Module, batch: Batch) -> float:
    """Returns the multiply-adds of convolutions and matrix products for one image, half of what torch's ``FlopCounterMode`` counts.

    They are counted on torch's meta device, which computes nothing.
    """
    with torch.device('meta'), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        network.to('meta').eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty_like(batch.images[:1], device='meta'))
    return float(counter.get_total_flops() // 2)
