"""The Zen-score: how strongly an untrained network reacts to a small change of its input (Lin et al., ICCV 2021, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nni_darts.strategies.proxies.base import Batch

__all__ = ['zen']

_CHANGE = 0.01


def zen(network: nn.Module, batch: Batch) -> float:
    """Returns ln mean ‖f(x) − f(x + 0.01 ε)‖₁ + Σ ln √mean σ², over one batch of normal noise x and ε in the shape of the images.

    f is the last feature map before the global pooling. All weights are drawn from N(0, 1), and batch norm has scale 1 and shift 0. The sum
    over all batch norms undoes the factors by which they divide; σ² are the variances of x's batch itself, which the running statistics
    hold if their momentum is 1. A batch norm without its statistics is not undone.

    Raises:
        ValueError: if no module returns a feature map (B, C, H, W).
    """
    _redraw(network)
    x, noise = torch.randn_like(batch.images), torch.randn_like(batch.images)
    with torch.no_grad():
        before = _features(network, x)
        variances = [module.running_var for module in network.modules() if isinstance(module, _BatchNorm)]
        scales = sum(float(variance.double().mean().sqrt().log()) for variance in variances if variance is not None)
        after = _features(network, x + _CHANGE * noise)
    change = (before - after).double().abs().flatten(1).sum(dim=1).mean()
    return float(change.log()) + scales


def _redraw(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _BatchNorm):
            module.momentum = 1.0
            module.reset_parameters()


def _features(network: nn.Module, images: Tensor) -> Tensor:
    """Returns the last feature map of a forward pass: the last output of a module with more than one pixel, or else with one."""
    maps: dict[bool, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            maps[output.shape[2] * output.shape[3] > 1] = output

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise ValueError('zen compares feature maps (B, C, H, W), and no module of the network returns one; use another proxy')
    return maps.get(True, maps.get(False))  # type: ignore[return-value]
