"""The batch on which proxies score, the layers whose weights they read, and the copy of the network that they may change."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ['Batch', 'Proxy', 'logits_of', 'score_with', 'weights_of']


@dataclass(frozen=True)
class Batch:
    """A minibatch on which networks are scored.

    Attributes:
        images: (B, C, H, W) floats.
        labels: (B,) int64.

    Example:
        ``Batch(torch.rand(64, 3, 32, 32), torch.randint(10, (64,)))``
    """

    images: Tensor
    labels: Tensor


Proxy = Callable[[nn.Module, Batch], float]
"""(network that may be changed, batch) → score"""


def score_with(proxy: Proxy, network: nn.Module, batch: Batch, seed: int) -> float:
    """Computes a proxy on a copy of a network in training mode. Arguments and result as for :func:`nni_darts.strategies.proxies.score`."""
    copied = copy.deepcopy(network).train()
    for parameter in copied.parameters():
        parameter.grad = None
    devices = [batch.images.device] if batch.images.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        value = proxy(copied, batch)
    return value if math.isfinite(value) else -math.inf


def weights_of(network: nn.Module) -> Iterator[Tensor]:
    """Yields the weights, without biases, of all ``nn.Conv2d`` and ``nn.Linear`` of a network, as the authors' code does.

    Raises:
        ValueError: if there are none.
    """
    found = [layer.weight for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    if not found:
        raise ValueError('this proxy reads the weights of nn.Conv2d and nn.Linear, and the network has none; use parameters or naswot')
    yield from found


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Returns the logits (B, classes), without those of an auxiliary head."""
    output = network(images)
    return output[0] if isinstance(output, tuple) else output
