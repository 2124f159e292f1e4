"""The search space of NAS-Bench-201 (Dong & Yang, ICLR 2020, section 2.1): a small cell, stacked in three stages.

The same code builds the search space and, from a genotype, the network to train.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from nni_darts._nni import Categorical, LayerChoice, ModelSpace, current_model
from nni_darts.genotypes.nasbench201 import EDGES, OPERATIONS, NasBench201Genotype, edge_label
from nni_darts.search_spaces.convolutions import Conv2d
from nni_darts.search_spaces.operations import ReLUConvBN, create_operation, suited_layout

__all__ = ['STAGES', 'NasBench201Network', 'NasBench201Space', 'edge_operation', 'nasbench201_network']

STAGES = 3

_KERNEL_SIZES = {'nor_conv_1x1': 1, 'nor_conv_3x3': 3}

MakeEdge = Callable[[int, int, int], nn.Module]
"""(node, source, channels) → module on this edge"""


def edge_operation(name: str, channels: int, *, affine: bool) -> nn.Module:
    """Builds the candidate with a name: (B, channels, H, W) → same shape. Unlike in DARTS, there is no batch norm after the pool."""
    if name in _KERNEL_SIZES:
        return ReLUConvBN(channels, channels, _KERNEL_SIZES[name], affine=affine)
    return create_operation(name, channels, 1, affine=affine, pool_batch_norm=False)


class _Cell(nn.Module):
    """Four nodes: node 0 is the input, every other node the sum of its edges from all earlier nodes, and the last node the output."""

    def __init__(self, channels: int, make_edge: MakeEdge) -> None:
        super().__init__()
        self.edges = nn.ModuleList(make_edge(node, source, channels) for node, source in EDGES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, H, W) for (B, C, H, W)."""
        states = [x]
        for (node, source), edge in zip(EDGES, self.edges):
            output = edge(states[source])
            if node == len(states):
                states.append(output)
            else:
                states[node] = states[node] + output
        return states[-1]


class _ResidualReduction(nn.Module):
    """The block between stages, which halves height and width and changes the channels (a pre-activated block of He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.ReLU(),
            Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            ReLUConvBN(out_channels, out_channels, 3),
        )
        # The benchmark's images have even sides. For an odd side, the pool averages the remaining pixels, so that both branches agree.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C', ⌈H / 2⌉, ⌈W / 2⌉) for (B, C, H, W)."""
        return self.shortcut(x) + self.residual(x)


class _StagedNetwork(nn.Module):
    """Base class of the space and the network: the stacking of cells, and the forward pass."""

    def _build(self, make_edge: MakeEdge, *, channels: int, cells: int, num_classes: int, in_channels: int) -> None:
        for name, value in (('channels', channels), ('num_classes', num_classes), ('in_channels', in_channels)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, not {value}')
        if cells < STAGES or cells % STAGES:
            raise ValueError(
                f'cells must be a multiple of {STAGES} (as many in each of the {STAGES} stages) and at least {STAGES}, not {cells}'
            )
        # The batch norms here, in the residual blocks and in the head are affine in search, too, as in the benchmark's code for
        # searching. Only the batch norms of the candidates are not.
        self.stem = nn.Sequential(Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.cells = nn.ModuleList()
        for stage in range(STAGES):
            if stage:
                self.cells.append(_ResidualReduction(channels, 2 * channels))
                channels = 2 * channels
            self.cells.extend(_Cell(channels, make_edge) for _ in range(cells // STAGES))
        self.head = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, num_classes) for images (B, in_channels, H, W)."""
        x = self.stem(suited_layout(images))
        for cell in self.cells:
            x = cell(x)
        return self.classifier(self.head(x).mean(dim=(2, 3)))


class NasBench201Space(_StagedNetwork, ModelSpace):
    """The search space of NAS-Bench-201 as an NNI ``ModelSpace``.

    Every edge of the cell is a ``LayerChoice`` of the five operations. All cells share the six labels (``edge_1_0``, …). ``none`` is a
    candidate like any other; it removes a connection, so there are no choices of inputs.

    Args:
        channels: C, the number of channels of the first stage; each further stage doubles it.
        cells: number of cells to search, a third of them in each stage; the two residual blocks between stages are not counted.
        num_classes: number of classes.
        in_channels: number of channels of the images.

    The defaults are those of the benchmark. Under ``model_context(sample)``, the space is a network with new weights and affine batch
    norm, as :func:`nasbench201_network` builds it. ``freeze(sample)`` keeps the weights of the space, in which the batch norms of the
    candidates are not affine.

    Raises:
        ValueError: for invalid sizes.
    """

    def __init__(self, channels: int = 16, cells: int = 15, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        sample = current_model()  # NNI builds one model of the space if this is not None

        def make_edge(node: int, source: int, channels: int) -> nn.Module:
            label = edge_label(node, source)
            if sample is not None:  # LayerChoice would build all five candidates and discard four
                chosen = Categorical(list(OPERATIONS), label=label).freeze(sample)
                return edge_operation(chosen, channels, affine=True)
            return LayerChoice({name: edge_operation(name, channels, affine=False) for name in OPERATIONS}, label=label)

        self._build(make_edge, channels=channels, cells=cells, num_classes=num_classes, in_channels=in_channels)


class NasBench201Network(_StagedNetwork):
    """The network of one cell. The arguments are those of :func:`nasbench201_network`."""

    def __init__(
        self, genotype: NasBench201Genotype, *, channels: int, cells: int, num_classes: int, in_channels: int, affine: bool
    ) -> None:
        super().__init__()
        chosen = dict(zip(EDGES, genotype.operations))

        def make_edge(node: int, source: int, channels: int) -> nn.Module:
            return edge_operation(chosen[node, source], channels, affine=affine)

        self._build(make_edge, channels=channels, cells=cells, num_classes=num_classes, in_channels=in_channels)
        self.genotype = genotype


def nasbench201_network(
    genotype: NasBench201Genotype,
    channels: int = 16,
    cells: int = 15,
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    affine: bool = True,
    **others: Any,
) -> NasBench201Network:
    """Returns the network to train: images (B, in_channels, H, W) → logits (B, num_classes).

    Args:
        genotype: any cell of NAS-Bench-201.
        channels, cells, num_classes, in_channels: see :class:`NasBench201Space`.
        affine: whether the batch norms of the cells have scale and shift.
        others: ``stem``, ``auxiliary`` and ``drop_path`` of other networks of cells, which must have their default values here; and
            ``pool_batch_norm``, which is ignored, because pools never have a batch norm here.

    Raises:
        ValueError: for invalid sizes, or an option that these networks do not have.
    """
    only = {'stem': 'cifar', 'auxiliary': False, 'drop_path': 0.0, 'pool_batch_norm': others.get('pool_batch_norm')}
    for name, value in others.items():
        if name not in only:
            raise ValueError(f'networks of NAS-Bench-201 have no {name}')
        if value != only[name]:
            raise ValueError(f'networks of NAS-Bench-201 have no other {name} than {only[name]!r}')
    return NasBench201Network(genotype, channels=channels, cells=cells, num_classes=num_classes, in_channels=in_channels, affine=affine)
