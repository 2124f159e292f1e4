"""The cost of a network: parameters and multiply-adds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nni_darts.genotypes import AnyGenotype
from nni_darts.recurrent import RnnGenotype
from nni_darts.search_spaces import network_from_genotype

__all__ = ['Cost', 'network_cost', 'recurrent_cost']


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-adds of convolutions and matrices for one image or one word; without the auxiliary head.

    Multiply-adds are half of what torch's ``FlopCounterMode`` counts.
    """

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
    with _nothing_allocated():
        network = network_from_genotype(genotype, channels, cells, num_classes, in_channels=in_channels, stem=stem)
        return _counted(network, torch.empty(1, in_channels, *image_size))


def recurrent_cost(genotype: RnnGenotype, *, vocabulary: int, hidden: int) -> Cost:
    """The same for a recurrent cell and one word. Args: as for ``network_from_genotype``."""
    with _nothing_allocated():
        network = network_from_genotype(genotype, vocabulary=vocabulary, embedding=hidden, hidden=hidden)
        return _counted(network, torch.empty(1, 1, dtype=torch.long))


@contextmanager
def _nothing_allocated() -> Iterator[None]:
    with torch.device('meta'), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        yield


def _counted(network: nn.Module, inputs: Tensor) -> Cost:
    network.eval()
    with FlopCounterMode(display=False) as counter:
        network(inputs)
    return Cost(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2)
