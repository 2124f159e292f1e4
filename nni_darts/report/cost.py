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
    """Trainable parameters, and multiply-adds of convolutions and matrices for one image or one word; without the auxiliary head.

    Multiply-adds are half of what torch's ``FlopCounterMode`` counts.
    """

    parameters: int
    multiply_adds: int


def network_cost(genotype: AnyGenotype, *, image_size: tuple[int, int] = (32, 32), in_channels: int = 3, **options: Any) -> Cost:
    """Counts for one image on torch's meta device: nothing is allocated or computed.

    Args: as for ``network_from_genotype``; ``image_size`` is (H, W).
    """
    return counted(lambda: network_from_genotype(genotype, in_channels=in_channels, **options), (1, in_channels, *image_size))


def counted(build: Callable[[], nn.Module], shape: Sequence[int], dtype: torch.dtype | None = None) -> Cost:
    """Counts on torch's meta device.

    Args:
        build: builds the network.
        shape: the shape of its input.
        dtype: the type of its input; None is torch's default.
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
