"""The cost of a network: parameters and multiply-adds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_darts.genotypes import AnyGenotype
from nni_darts.search_spaces import network_from_genotype

__all__ = ['Cost', 'counted', 'network_cost']


@dataclass(frozen=True)
class Cost:
    """The cost of a network, without its auxiliary head, for one image or one word.

    Attributes:
        parameters: number of trainable parameters.
        multiply_adds: number of multiply-adds in convolutions and matrix products, which is half of what torch's ``FlopCounterMode``
            counts.
    """

    parameters: int
    multiply_adds: int


def network_cost(genotype: AnyGenotype, *, image_size: tuple[int, int] = (32, 32), in_channels: int = 3, **options: Any) -> Cost:
    """Returns the cost for one image, counted on torch's meta device, which allocates and computes nothing.

    Args:
        genotype: genotype of the network.
        image_size: (H, W) in pixels.
        in_channels: number of channels of the image.
        options: further arguments of ``network_from_genotype``.
    """
    return counted(lambda: network_from_genotype(genotype, in_channels=in_channels, **options), (1, in_channels, *image_size))


def counted(build: Callable[[], nn.Module], shape: Sequence[int], dtype: torch.dtype | None = None) -> Cost:
    """Returns the cost of a network, counted on torch's meta device.

    Args:
        build: function that builds the network.
        shape: shape of its input.
        dtype: type of its input; by default torch's default type.
    """
    with _nothing_allocated():
        network = build().eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(*shape, dtype=dtype))
        return Cost(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2)


@contextmanager
def _nothing_allocated() -> Iterator[None]:
    with torch.device('meta'), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        yield
