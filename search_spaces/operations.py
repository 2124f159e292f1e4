"""Candidate operations of convolutional cells, by name (Liu et al., ICLR 2019, section 3.1; Zoph et al., CVPR 2018).

All of them map (B, C, H, W) to (B, C, ⌈H / stride⌉, ⌈W / stride⌉).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts._lazy import in_user_code, named, source_file
from nni_darts.errors import InputError
from nni_darts.genotypes.base import is_import_path
from nni_darts.genotypes.convolutional import OPERATION_NAMES
from nni_darts.search_spaces.convolutions import Conv2d, DepthwiseConv2d, PointwiseConv2d
from nni_darts.search_spaces.own import built

__all__ = ['BatchNorm2d', 'FactorizedReduce', 'Noise', 'ReLUConvBN', 'Zero', 'check_own_operation', 'create_operation', 'suited_layout']


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that loads the state of a non-affine batch norm with scale 1 and shift 0.

    Search uses batch norm without affine parameters, and retraining uses it with them. The weights of a frozen supernet can therefore be
    loaded into the network to retrain, and both compute the same function.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.affine and f'{prefix}running_mean' in state_dict and not {f'{prefix}weight', f'{prefix}bias'} & state_dict.keys():
            state_dict[f'{prefix}weight'] = torch.ones_like(self.weight)
            state_dict[f'{prefix}bias'] = torch.zeros_like(self.bias)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Zero(nn.Module):
    """``none``: no connection."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return torch.zeros_like(x)


class Noise(nn.Module):
    """Returns new N(0, 1) numbers in the shape of the output, whatever the input (Zela et al., ICLR 2020). It should never be chosen."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    """Halves height and width with two parallel 1×1 convolutions of stride 2, one of which is shifted by one pixel."""

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv_1 = PointwiseConv2d(in_channels, half, stride=2)
        self.conv_2 = PointwiseConv2d(in_channels, out_channels - half, stride=2)
        self.bn = BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.reduce(functional.relu(x)))

    def reduce(self, x: Tensor) -> Tensor:
        """Returns the output of the convolutions for an input that has passed the ReLU."""
        # On an odd side, the shifted convolution needs one pixel of zeros at the end. On an even side this pixel is never read, but padding
        # always keeps an exported program for images of any size shorter.
        height, width = (1, 1) if torch.compiler.is_compiling() else (x.shape[2] % 2, x.shape[3] % 2)
        shifted = functional.pad(x, (-1, width, -1, height))
        return torch.cat([self.conv_1(x), self.conv_2(shifted)], dim=1)


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, *, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),
            Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            BatchNorm2d(out_channels, affine=affine),
        )


def _separable_layer(channels: int, kernel_size: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    return [
        nn.ReLU(),
        DepthwiseConv2d(channels, kernel_size, stride, dilation),
        PointwiseConv2d(channels, channels),
        BatchNorm2d(channels, affine=affine),
    ]


def _separable(kernel_size: int, channels: int, stride: int, affine: bool) -> nn.Module:
    first = _separable_layer(channels, kernel_size, stride, 1, affine)
    return nn.Sequential(*first, *_separable_layer(channels, kernel_size, 1, 1, affine))


def _dilated(kernel_size: int, channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(*_separable_layer(channels, kernel_size, stride, 2, affine))


def _conv_7x1_1x7(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        BatchNorm2d(channels, affine=affine),
    )


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=affine)


def _max_pool(stride: int) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _avg_pool(stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


_POOLS: dict[str, Callable[[int], nn.Module]] = {'max_pool_3x3': _max_pool, 'avg_pool_3x3': _avg_pool}

_FACTORIES: dict[str, Callable[[int, int, bool], nn.Module]] = {
    'none': lambda channels, stride, affine: Zero(stride),
    'noise': lambda channels, stride, affine: Noise(stride),
    'skip_connect': _skip,
    'sep_conv_3x3': partial(_separable, 3),
    'sep_conv_5x5': partial(_separable, 5),
    'sep_conv_7x7': partial(_separable, 7),
    'dil_conv_3x3': partial(_dilated, 3),
    'dil_conv_5x5': partial(_dilated, 5),
    'conv_7x1_1x7': _conv_7x1_1x7,
}


def create_operation(name: str, channels: int, stride: int, *, affine: bool, pool_batch_norm: bool = True) -> nn.Module:
    """Builds an operation by name: (B, channels, H, W) → (B, channels, ⌈H / stride⌉, ⌈W / stride⌉).

    Args:
        name: a name in ``nni_darts.genotypes.convolutional.OPERATION_NAMES``, or the user's ``package.module:Class``, which is called with
            the number of channels, the stride and, if it has such a parameter, ``affine``.
        channels: number of input and output channels.
        stride: 1 or 2.
        affine: whether batch norm has scale and shift, as in retraining, or not, as in search.
        pool_batch_norm: whether a batch norm, which is never affine, follows pools. The DARTS supernet has it; the authors' network to
            retrain does not, although the cell was chosen with it.

    Raises:
        ValueError: for an unknown name, or a user's operation that cannot be built; the message names the user's file and line.
    """
    if is_import_path(name):
        return _own_operation(name, channels, stride, affine)
    if name in _POOLS:
        pool = _POOLS[name](stride)
        return nn.Sequential(pool, BatchNorm2d(channels, affine=False)) if pool_batch_norm else pool
    if name not in _FACTORIES:
        raise ValueError(f'unknown operation {name!r}; known: {", ".join(OPERATION_NAMES)}')
    return _FACTORIES[name](channels, stride, affine)


def _own_operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    build = named(name, 'operation')
    if isinstance(build, nn.Module) or not callable(build):
        raise InputError(f'operation {name} is an object of {type(build).__name__}; it must be a class or function of (channels, stride)')
    with in_user_code(name, 'operation', source_file(build)):
        signature = inspect.signature(build)
        more = {'affine': affine} if 'affine' in signature.parameters else {}
    try:
        signature.bind(channels, stride, **more)
    except TypeError as error:
        given = 'with the channels and the stride'
        raise InputError(f'operation {name} is called {given}, and takes {signature}: {error} ({source_file(build)})') from None
    with in_user_code(name, 'operation', source_file(build)):
        operation = built(lambda: build(channels, stride, **more))
    if not isinstance(operation, nn.Module):
        raise InputError(f'operation {name} returned an object of type {type(operation).__name__}; it must return a torch.nn.Module')
    return operation


def check_own_operation(name: str, channels: int, size: tuple[int, int]) -> None:
    """Checks a user's operation: builds it on torch's meta device with stride 1 and 2, and runs it on two empty images.

    Args:
        name: ``package.module:Class``.
        channels: number of input and output channels.
        size: (H, W) of the images.

    Raises:
        InputError: if the operation cannot be built, fails, returns another shape than (2, channels, ⌈H / stride⌉, ⌈W / stride⌉) or a type
            that is not floating-point, or changes its input in place.
    """
    for stride in (1, 2):
        images = torch.empty(2, channels, *size, device='meta')
        with torch.device('meta'), torch.no_grad():
            operation = create_operation(name, channels, stride, affine=True)
            where = f'{name} with {channels} channels and stride {stride}'
            with in_user_code(f'{where} on images of {size[0]}×{size[1]}', 'operation', source_file(named(name, 'operation'))):
                output = operation(images)
        wanted = (2, channels, *(-(-side // stride) for side in size))
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if given != wanted:
            raise InputError(f'operation {where} returns {given} for images {tuple(images.shape)}; it must return {wanted}')
        if not output.is_floating_point():
            raise InputError(f'operation {where} returns numbers of {output.dtype}; they must be of a floating-point type')
        if images._version:
            raise InputError(f'operation {where} changes its input in place, which other operations read, too; use inplace=False')


def suited_layout(images: Tensor) -> Tensor:
    """Returns the images in the memory layout in which the device's convolutions and pools are fast; later operations keep this layout.

    On the CPU this is channels_last, which matters most for depthwise convolutions. The values are the same up to rounding.
    """
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == 'cpu' else images
