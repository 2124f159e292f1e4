"""What a network costs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from nni_darts.genotypes import AnyGenotype
from nni_darts.search_spaces import network_from_genotype

__all__ = ['Cost', 'network_cost']


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-adds of convolutions and linear layers for one image; without the auxiliary head."""

    parameters: int
    multiply_adds: int


def network_cost(
    genotype: AnyGenotype,
    *,
    channels: int,
    cells: int,
    num_classes: int,
    in_channels: int = 3,
    stem: str = 'cifar',
    image_size: tuple[int, int] = (32, 32),
) -> Cost:
    """Counts on torch's meta device: nothing is allocated or computed.

    Args: as for ``network_from_genotype``; ``image_size`` is (H, W).
    """
    with torch.device('meta'), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        network = network_from_genotype(genotype, channels, cells, num_classes, in_channels=in_channels, stem=stem)
        network.eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, in_channels, *image_size))
    return Cost(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2)
