"""PC-DARTS: only a part of the channels is searched, and edges have weights (Xu et al., ICLR 2020)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.catalogue import PartialSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.settings import typed

__all__ = ['PartialChannels']


@typed(settings=PartialSettings)
class PartialChannels(Relaxation):
    """Sends C / k of an edge's C channels through the mixed operation, lets the other channels bypass it, and shuffles the channels.

    If the operation halves height and width, the other channels are max-pooled 2×2. The inputs of a node are weighted by softmax(β), and
    a cell is derived from α·β. Candidates have C / k channels: their convolutions and batch norms are built again at this size. A frozen
    model has candidates of full size with new weights.

    Args:
        portion: k.
        edge_weights: whether edges have the weights β.

    Raises:
        ValueError: for k below 1; or when a space is relaxed, for a candidate whose number of channels is not divisible by k, whose
            parameters are not those of convolutions and batch norms, or that contains choices.
    """

    def __init__(self, portion: int = 4, *, edge_weights: bool = True) -> None:
        self.portion = portion
        self.weighted_edges = edge_weights

    @property
    def mixes_by_weights(self) -> bool:
        """See :class:`Relaxation`. This holds for the searched channels."""
        return type(self).mix is Relaxation.mix and type(self).around is PartialChannels.around

    def candidate(self, module: nn.Module, name: str) -> nn.Module:
        """Returns the candidate with 1/k of its channels."""
        if self.portion == 1:
            return module
        if any(getattr(layer, 'mutables', ()) for layer in module.modules()):
            raise ValueError(f'pc-darts searches part of the channels of a candidate, so {name!r} cannot hold choices of its own')
        narrow = _narrow(copy.deepcopy(module), self.portion)  # type: ignore[arg-type]
        covered = {id(tensor) for layer in narrow.modules() if isinstance(layer, _LAYERS) for tensor in layer.parameters(recurse=False)}
        if any(id(parameter) not in covered for parameter in narrow.parameters()):
            raise ValueError(f'pc-darts can narrow only operations made of Conv2d and BatchNorm2d, not {type(module).__name__}')
        return narrow

    def around(self, compute: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """Returns (B, C, H', W') for (B, C, H, W)."""
        if self.portion == 1:
            return compute(*args, **kwargs)
        features, *others = args
        part = features.shape[1] // self.portion
        # One dense copy for all candidates, in the memory layout of the features.
        searched = compute(features[:, :part].clone(), *others, **kwargs)
        passed = features[:, part:]
        if passed.shape[2:] != searched.shape[2:]:
            passed = functional.max_pool2d(passed, 2, 2, ceil_mode=True)
        # The shuffle lets the next operation also search some of the channels that bypassed this one.
        return torch.channel_shuffle(torch.cat([searched, passed], dim=1), self.portion)  # type: ignore[arg-type]


_LAYERS = (nn.Conv2d, nn.BatchNorm2d)


def _narrow(module: nn.Module, portion: int) -> nn.Module:
    """Reduces every convolution and batch norm to 1/portion of its channels, with new parameters, in place. Returns the module."""
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:
            module.groups = _divided(module.groups, portion)
        module.in_channels, module.out_channels = _divided(module.in_channels, portion), _divided(module.out_channels, portion)
        module.weight = nn.Parameter(module.weight.new_empty(module.out_channels, module.in_channels // module.groups, *module.kernel_size))
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias.new_empty(module.out_channels))
        module.reset_parameters()
        return module
    if isinstance(module, nn.BatchNorm2d):
        return type(module)(_divided(module.num_features, portion), module.eps, module.momentum, module.affine, module.track_running_stats)
    for name, child in module.named_children():
        setattr(module, name, _narrow(child, portion))
    return module


def _divided(channels: int, portion: int) -> int:
    if channels % portion:
        raise ValueError(f'pc-darts searches 1/{portion} of the channels, but {channels} channels cannot be divided by {portion}')
    return channels // portion
