"""Small model spaces with one kind of NNI mutable each, for tests of the strategies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import nni
import torch
from nni.nas.nn.pytorch import (
    Cell,
    MutableAvgPool2d,
    MutableBatchNorm2d,
    MutableConv1d,
    MutableConv2d,
    MutableDropout,
    MutableGroupNorm,
    MutableLayerNorm,
    MutableLeakyReLU,
    MutableLinear,
    MutableMultiheadAttention,
    Repeat,
)
from torch import Tensor, nn

from nni_darts._nni import LayerChoice, ModelSpace


class Chain(ModelSpace):
    """Base class of spaces that map images (B, 3, 8, 8) to logits (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*self.build())

    def build(self) -> list[nn.Module]:
        """Returns the layers."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class _Tokens(nn.Module):
    """(B, C, H, W) → (B, H·W, C)"""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Width(Chain):
    """A width that three layers share, and an expression of it."""

    def build(self) -> list[nn.Module]:
        width = nni.choice('width', [2, 4, 6])
        return [
            MutableConv2d(3, width, 3, padding=1),
            nn.ReLU(),
            MutableConv2d(width, width * 2 + 1, 3, padding=1, bias=False),
            nn.Tanh(),
            _Pool(),
            MutableLinear(width * 2 + 1, 4),
        ]


class Square(Chain):
    """One label on two axes of one module."""

    def build(self) -> list[nn.Module]:
        width = nni.choice('width', [3, 5])
        return [MutableConv2d(3, width, 1), nn.ReLU(), MutableConv2d(width, width, 1), _Pool(), MutableLinear(width, 4)]


class Kernel(Chain):
    """Kernel size, with its padding; dilation; a bias to choose."""

    def build(self) -> list[nn.Module]:
        size, dilation = nni.choice('size', [1, 3, 5]), nni.choice('dilation', [1, 2])
        return [
            MutableConv2d(3, 4, size, padding=(size - 1) // 2, bias=nni.choice('bias', [True, False])),
            nn.ReLU(),
            MutableConv2d(4, 4, 3, padding=dilation, dilation=dilation, stride=2),
            _Pool(),
            nn.Linear(4, 4),
        ]


class TupleKernel(Chain):
    """Kernels that are tuples, and padding by reflection."""

    def build(self) -> list[nn.Module]:
        shape = nni.choice('shape', [(1, 3), (3, 1)])
        kernel = nni.choice('kernel', [3, 5])
        return [
            MutableConv2d(3, 4, shape, padding='same'),
            nn.ReLU(),
            MutableConv2d(4, 4, kernel, padding=kernel // 2, padding_mode='reflect'),
            _Pool(),
            nn.Linear(4, 4),
        ]


class Depthwise(Chain):
    """Depthwise convolutions whose groups are the width."""

    def build(self) -> list[nn.Module]:
        width = nni.choice('width', [2, 4]) * nni.choice('expansion', [1, 3])
        return [
            MutableConv2d(3, width, 1),
            nn.ReLU(),
            MutableConv2d(width, width, 3, padding=1, groups=width),
            nn.ReLU(),
            _Pool(),
            MutableLinear(width, 4),
        ]


class Groups(Chain):
    """A number of groups to choose, and a width with a constant number of groups."""

    def build(self) -> list[nn.Module]:
        groups, width = nni.choice('groups', [1, 2, 4]), nni.choice('width', [4, 8])
        return [
            nn.Conv2d(3, 8, 1),
            nn.ReLU(),
            MutableConv2d(8, 8, 3, padding=1, groups=groups),
            nn.ReLU(),
            MutableConv2d(8, width, 3, padding=1, groups=4, bias=False),
            nn.ReLU(),
            _Pool(),
            MutableLinear(width, 4),
        ]


class BatchNorm(Chain):
    """Batch norm over a width, between convolutions."""

    def build(self) -> list[nn.Module]:
        width = nni.choice('width', [2, 5])
        return [
            MutableConv2d(3, width, 3, padding=1, bias=False),
            MutableBatchNorm2d(width),
            nn.ReLU(),
            MutableConv2d(width, 4, 1),
            MutableBatchNorm2d(4, affine=False),
            _Pool(),
            nn.Linear(4, 4),
        ]


class PlainBatchNorm(Chain):
    """Batch norm without scale and shift over a width."""

    def build(self) -> list[nn.Module]:
        width = nni.choice('width', [2, 5])
        return [MutableConv2d(3, width, 1), MutableBatchNorm2d(width, affine=False), nn.ReLU(), _Pool(), MutableLinear(width, 4)]


class LayerNorm(Chain):
    """Layer norm over a width, and tokens."""

    def build(self) -> list[nn.Module]:
        width = nni.choice('width', [2, 5])
        return [MutableConv2d(3, width, 2, stride=2), _Tokens(), MutableLayerNorm(width), _Mean(), MutableLinear(width, 4)]


class GroupNorm(Chain):
    """Group norm over a width with a number of groups to choose."""

    def build(self) -> list[nn.Module]:
        width, groups = nni.choice('width', [4, 8]), nni.choice('groups', [1, 2])
        return [MutableConv2d(3, width, 3, padding=1), MutableGroupNorm(groups, width), nn.ReLU(), _Pool(), MutableLinear(width, 4)]


class _SelfAttention(nn.Module):
    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.attention = MutableMultiheadAttention(batch_first=True, **arguments)

    def forward(self, x: Tensor) -> Tensor:
        output, attended = self.attention(x, x, x)
        return output + attended.mean()


class Attention(Chain):
    """Features and heads of an attention."""

    def build(self) -> list[nn.Module]:
        width, heads = nni.choice('width', [4, 8]), nni.choice('heads', [1, 2, 4])
        return [
            MutableConv2d(3, width, 2, stride=2),
            _Tokens(),
            _SelfAttention(embed_dim=width, num_heads=heads),
            _Mean(),
            MutableLinear(width, 4),
        ]


class Parts(Chain):
    """Dropout, a slope and a pool: modules without weights, and a choice among layers that holds a choice of width."""

    def build(self) -> list[nn.Module]:
        size, width = nni.choice('size', [1, 3]), nni.choice('width', [2, 3])
        branch = nn.Sequential(MutableConv2d(4, width, 1), nn.ReLU(), MutableConv2d(width, 4, 1))
        return [
            nn.Conv2d(3, 4, 1),
            MutableLeakyReLU(nni.choice('slope', [0.1, 0.5])),
            MutableDropout(nni.choice('dropout', [0.0, 0.5])),
            MutableAvgPool2d(size, stride=1, padding=size // 2),
            LayerChoice({'branch': branch, 'skip': nn.Identity()}, label='layer'),
            _Pool(),
            nn.Linear(4, 4),
        ]


class _Lines(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)


class OneDimension(Chain):
    """A convolution in one dimension."""

    def build(self) -> list[nn.Module]:
        width, size = nni.choice('width', [2, 4]), nni.choice('size', [3, 5])
        return [_Lines(), MutableConv1d(3, width, size, padding=size // 2), nn.ReLU(), _Last(), MutableLinear(width, 4)]


class _Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


class Depth(Chain):
    """Depth from 0 on, with a width inside the blocks, choices of their own, and a label that stands in two stacks."""

    def build(self) -> list[nn.Module]:
        width, depth = nni.choice('width', [2, 3]), nni.choice('depth', [0, 1, 2])

        def block(number: int) -> nn.Module:
            body = nn.Sequential(MutableConv2d(width, 2 * width, 3, padding=1), nn.ReLU(), MutableConv2d(2 * width, width, 1))
            return LayerChoice({'body': body, 'skip': nn.Identity()}, label=f'block{number}')

        return [
            MutableConv2d(3, width, 1),
            Repeat(block, depth),
            nn.Tanh(),
            Repeat(lambda number: MutableConv2d(width, width, nni.choice('size', [1, 3]), padding='same'), depth + 1),
            _Pool(),
            MutableLinear(width, 4),
        ]


class LabelledDepth(Chain):
    """A range of depths with a label, of blocks without choices."""

    def build(self) -> list[nn.Module]:
        return [Repeat(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()), (0, 2), label='depth'), _Pool(), nn.Linear(3, 4)]


class _Ones(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class Count(ModelSpace):
    """Blocks that count how often they run."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Repeat(lambda number: _Ones(), nni.choice('depth', [0, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Halving(ModelSpace):
    """A depth of which the first block halves the image: outputs differ in size."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Repeat(lambda number: nn.Conv2d(3, 3, 3, 2 - bool(number), 1), (0, 2), label='depth')

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean((2, 3))


VALUES: Mapping[str, Callable[[], ModelSpace]] = {
    'width': Width,
    'one label on two axes': Square,
    'kernel, dilation, bias': Kernel,
    'kernel that is a tuple': TupleKernel,
    'depthwise': Depthwise,
    'groups': Groups,
    'batch norm': BatchNorm,
    'batch norm without affine': PlainBatchNorm,
    'layer norm': LayerNorm,
    'group norm': GroupNorm,
    'attention': Attention,
    'dropout, activation, pool': Parts,
    'one dimension': OneDimension,
    'depth': Depth,
    'depth by label': LabelledDepth,
}


class Strided(Chain):
    """A stride to choose: outputs differ in size."""

    def build(self) -> list[nn.Module]:
        return [MutableConv2d(3, 4, 3, stride=nni.choice('stride', [1, 2]), padding=1), nn.ReLU(), _Pool(), nn.Linear(4, 4)]


def images(count: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns random images (count, 3, 8, 8)."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=dtype)


class Cells(ModelSpace):
    """Two of NNI's cells: two predecessors by number, a preprocessor, operations made for the input they read."""

    def __init__(self, merge: str = 'all', factory: bool = True, nodes: int = 2, operators: int = 2) -> None:
        super().__init__()

        def reads(node: int, operator: int, source: int | None) -> nn.Module:
            stride = 2 if source is None or source < 2 else 1
            return nn.Conv2d(4, 4, 3, stride, 1)

        def pools(node: int, operator: int, source: int | None) -> nn.Module:
            return nn.MaxPool2d(3, 2 if source is None or source < 2 else 1, 1)

        operations: Any = {'conv': reads, 'pool': pools} if factory else [nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()]
        self.stem = nn.Conv2d(3, 4, 1)
        self.first = Cell(operations, nodes, operators, 2, merge, preprocessor=_Both(4), label='first')
        self.head = nn.Linear(4 * nodes, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.first([x, torch.tanh(x)]).mean((2, 3)))


class _Both(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs)]
