"""PC-DARTS: part of the channels is searched, and edges have weights (Xu et al., ICLR 2020)."""

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
    """The first C / k of an edge's C channels go through the mixed operation, the others around it; then channels are shuffled.

    Where the operation halves height and width, the others are max-pooled 2×2. The inputs of a node are weighted by softmax(β), and a
    cell is derived from α·β. Candidates are searched with C / k channels: their convolutions and batch norms are built anew at that
    size, and a frozen model has candidates of full size with fresh weights.

    Args:
        portion: k.
        edge_weights: whether edges have weights β.

    Raises:
        ValueError: for k below 1; when a space is relaxed, for a candidate whose channels k does not divide, or with other parameters
            than those of convolutions and batch norms, or with choices inside.
    """

    def __init__(self, portion: int = 4, *, edge_weights: bool = True) -> None:
        self.portion = portion
        self.weighted_edges = edge_weights

    @property
    def mixes_by_weights(self) -> bool:
        """See :class:`Relaxation`: so are the channels that are searched."""
        return type(self).mix is Relaxation.mix and type(self).around is PartialChannels.around

    def candidate(self, module: nn.Module, name: str) -> nn.Module:
        """The candidate with 1/k of its channels."""
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
        """(B, C, H, W) → (B, C, H', W')"""
        if self.portion == 1:
            return compute(*args, **kwargs)
        features, *others = args
        part = features.shape[1] // self.portion
        # One dense copy for all candidates, in the layout of the features.
        searched = compute(features[:, :part].clone(), *others, **kwargs)
        passed = features[:, part:]
        if passed.shape[2:] != searched.shape[2:]:
            passed = functional.max_pool2d(passed, 2, 2, ceil_mode=True)
        # Shuffled so that the next operation, too, searches some of the channels that went around this one.
        return torch.channel_shuffle(torch.cat([searched, passed], dim=1), self.portion)  # type: ignore[arg-type]


_LAYERS = (nn.Conv2d, nn.BatchNorm2d)


def _narrow(module: nn.Module, portion: int) -> nn.Module:
    """Gives every convolution and batch norm 1/portion of the channels and fresh parameters; the module is changed in place."""
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
