"""The convolutional network of DARTS: a stem, a stack of cells and a classifier (Liu et al., ICLR 2019, section 3.1; Zoph et al., 2018).

The same code builds the search space and, from a genotype, the network to retrain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from nni_darts._nni import ModelSpace, current_model
from nni_darts.genotypes.candidates import Candidates, edge_candidates
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, Genotype
from nni_darts.search_spaces.cell import Cell, ChoiceNode, FixedNode
from nni_darts.search_spaces.convolutions import Conv2d
from nni_darts.search_spaces.operations import create_operation, suited_layout

__all__ = ['AuxiliaryHead', 'DartsSpace', 'Network', 'darts_network', 'edge_stride']

Stem = Literal['cifar', 'imagenet']
STEMS = ('cifar', 'imagenet')
STEM_MULTIPLIER = 3
MIN_CELLS = 3

MakeNodes = Callable[[str, int], tuple[list[nn.Module], Sequence[int]]]
"""(kind of cell, channels) → (nodes, indices of the states to concatenate)"""


class AuxiliaryHead(nn.Module):
    """A second classifier at two thirds of the depth (Szegedy et al., CVPR 2015), as in the authors' code.

    The published sizes of its features are 8×8 (CIFAR) and 7×7 (ImageNet); other sizes are likewise pooled to 2×2. With the ImageNet
    stem, there is no batch norm before the last ReLU, because the published models were trained without it.
    """

    def __init__(self, channels: int, num_classes: int, stem: Stem) -> None:
        super().__init__()
        self.pool_stride = 3 if stem == 'cifar' else 2
        self.features = nn.Sequential(
            Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            Conv2d(128, 768, 2, bias=False),
            *([nn.BatchNorm2d(768)] if stem == 'cifar' else []),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, num_classes) for features (B, C, H, W)."""
        x = functional.relu(x)
        if min(x.shape[2:]) >= 5:
            x = functional.avg_pool2d(x, 5, self.pool_stride, count_include_pad=False)
        if min(x.shape[2:]) < 2:
            x = functional.adaptive_avg_pool2d(x, 2)
        return self.classifier(self.features(x).mean(dim=(2, 3)))


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a network of cells. Raises ValueError for invalid sizes."""

    channels: int
    cells: int
    num_classes: int
    in_channels: int
    stem: Stem

    def __post_init__(self) -> None:
        for name in ('channels', 'num_classes', 'in_channels'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, not {getattr(self, name)}')
        if self.cells < MIN_CELLS:
            raise ValueError(f'cells must be at least {MIN_CELLS} (one normal, two reduction cells), not {self.cells}')
        if self.stem not in STEMS:
            raise ValueError(f'unknown stem {self.stem!r}; known: {", ".join(STEMS)}')


class _CellNetwork(nn.Module):
    """Base class of the space and the network: the stacking of cells, and the forward pass."""

    def _build(self, make_nodes: MakeNodes, sizes: _Sizes, *, affine: bool, auxiliary: bool = False) -> None:
        channels, cells, num_classes, in_channels, stem = astuple(sizes)
        if stem == 'cifar':
            width = STEM_MULTIPLIER * channels
            self.stem = nn.Sequential(Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
            earlier = (width, width)
        else:
            half = channels // 2
            self.stem = nn.Sequential(
                Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(),
                Conv2d(half, channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.stem_reduction = nn.Sequential(
                nn.ReLU(), Conv2d(channels, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)
            )
            earlier = (channels, channels)

        reductions = (cells // 3, 2 * cells // 3)
        self.reductions = reductions
        self.auxiliary_at = reductions[1]
        self.cells = nn.ModuleList()
        reduction_before = stem == 'imagenet'
        for index in range(cells):
            reduction = index in reductions
            channels = 2 * channels if reduction else channels
            nodes, concat = make_nodes('reduce' if reduction else 'normal', channels)
            self.cells.append(Cell(earlier, channels, nodes, concat, reduction_before=reduction_before, affine=affine))
            earlier = (earlier[1], len(concat) * channels)
            if auxiliary and index == self.auxiliary_at:
                self.auxiliary_head = AuxiliaryHead(earlier[1], num_classes, stem)
            reduction_before = reduction
        self.classifier = nn.Linear(earlier[1], num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Returns logits (B, num_classes) for images (B, in_channels, H, W); in training with an auxiliary head, a pair with its logits."""
        older = self.stem(suited_layout(images))
        previous = self.stem_reduction(older) if hasattr(self, 'stem_reduction') else older
        auxiliary = None
        for index, cell in enumerate(self.cells):
            older, previous = previous, cell(older, previous)
            if self.training and index == self.auxiliary_at and hasattr(self, 'auxiliary_head'):
                auxiliary = self.auxiliary_head(previous)
        logits = self.classifier(previous.mean(dim=(2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)


def edge_stride(kind: str, source: int) -> int:
    """Returns the stride of an edge of a cell: 2 from the two inputs of a reduction cell, and 1 elsewhere."""
    return 2 if kind == 'reduce' and source < 2 else 1


class DartsSpace(_CellNetwork, ModelSpace):
    """The DARTS search space as an NNI ``ModelSpace``.

    Every edge is a ``LayerChoice``, and every node an ``InputChoice`` of two. All normal cells share one set of labels
    (``normal_op_2_0``, ``normal_input_2``, …), and all reduction cells another, so that NNI sees each choice once.

    Args:
        channels: C, the number of channels of the first cells; each reduction cell doubles it.
        cells: number of cells; the cells at 1/3 and 2/3 are reduction cells.
        num_classes: number of classes.
        in_channels: number of channels of the images.
        nodes: number of intermediate nodes of each cell.
        stem: ``cifar`` keeps height and width; ``imagenet`` divides them by 8 before the first cell's output.
        operations: names of the candidates on every edge, or a table of them (see ``nni_darts.genotypes.candidates``).

    Attributes:
        candidates: names of the candidates on each edge (see ``nni_darts.genotypes.candidates``).

    Under ``model_context(sample)``, the space is a network with new weights and affine batch norm, as :func:`darts_network` builds
    it. ``freeze(sample)`` keeps the weights of the space, whose batch norms are not affine.

    Raises:
        ValueError: for invalid sizes, an unknown stem or an unknown operation.
    """

    def __init__(
        self,
        channels: int = 16,
        cells: int = 8,
        num_classes: int = 10,
        in_channels: int = 3,
        nodes: int = 4,
        stem: Stem = 'cifar',
        operations: Sequence[str] | Candidates = DARTS_OPERATIONS,
    ) -> None:
        super().__init__()
        if nodes < 1:
            raise ValueError(f'nodes must be at least 1, not {nodes}')
        candidates = edge_candidates(operations, nodes)
        self.candidates = candidates
        self._sizes: dict[str, Any] = {
            'channels': channels,
            'num_classes': num_classes,
            'in_channels': in_channels,
            'nodes': nodes,
            'stem': stem,
        }
        fixed = current_model() is not None  # NNI builds one model of the space, not the space itself

        def make_nodes(kind: str, channels: int) -> tuple[list[nn.Module], Sequence[int]]:
            def make_operation(name: str, source: int) -> nn.Module:
                return create_operation(name, channels, edge_stride(kind, source), affine=fixed)

            states = range(2, 2 + nodes)
            edges = iter(candidates[kind])
            made: list[nn.Module] = [ChoiceNode(kind, state, [next(edges) for _ in range(state)], make_operation) for state in states]
            return made, states

        self._build(make_nodes, _Sizes(channels, cells, num_classes, in_channels, stem), affine=fixed)

    def with_depth(self, cells: int, operations: Candidates) -> DartsSpace:
        """Returns the same space with another depth, other operations and new weights."""
        return DartsSpace(**self._sizes, cells=cells, operations=operations)


class Network(_CellNetwork):
    """The network to retrain: images (B, in_channels, H, W) → logits (B, num_classes).

    Args:
        genotype: any pair of cells, whether it is in the DARTS space or not.
        channels, cells, num_classes, in_channels, stem: see :class:`DartsSpace`.
        auxiliary: whether to add the auxiliary head; in training, the network then returns a pair of logits.
        drop_path: probability of dropping an edge in training; training schedules raise it with ``set_drop_path``.
        affine: whether batch norms have scale and shift.
        pool_batch_norm: whether a batch norm follows each pool, as in the supernet. The authors' network to retrain has none there.

    Raises:
        ValueError: for invalid sizes.

    Example:
        ``Network(PUBLISHED['DARTS_V2'], channels=16, cells=8)``
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        cells: int = 20,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        stem: Stem = 'cifar',
        auxiliary: bool = False,
        drop_path: float = 0.0,
        affine: bool = True,
        pool_batch_norm: bool = True,
    ) -> None:
        super().__init__()

        def make_nodes(kind: str, channels: int) -> tuple[list[nn.Module], Sequence[int]]:
            create = partial(create_operation, channels=channels, affine=affine, pool_batch_norm=pool_batch_norm)
            nodes: list[nn.Module] = [
                FixedNode([(create(name, stride=edge_stride(kind, source)), source) for name, source in edges])
                for edges in genotype.node_edges(kind)
            ]
            return nodes, genotype.cell(kind)[1]

        self._build(make_nodes, _Sizes(channels, cells, num_classes, in_channels, stem), affine=affine, auxiliary=auxiliary)
        self.genotype = genotype
        self.set_drop_path(drop_path)

    def set_drop_path(self, probability: float) -> None:
        """Sets the probability of dropping an edge for a sample in training."""
        if not 0 <= probability < 1:
            raise ValueError(f'drop_path must lie in [0, 1), not {probability}')
        for module in self.modules():
            if isinstance(module, FixedNode):
                module.drop_path = probability


darts_network = Network
"""An alias of :class:`Network`, because other networks have functions that build them."""
