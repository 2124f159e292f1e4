"""Plans of a relaxed cell's computations, which combine candidates on the outgoing edges of each state."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeGuard, TypeVar, cast

import torch
from torch import Tensor, nn

from nni_darts.search_spaces.cell import Cell
from nni_darts.search_spaces.convolutions import DepthwiseConv2d, PointwiseConv2d
from nni_darts.search_spaces.operations import FactorizedReduce, Zero
from nni_darts.strategies.fast.folded import EPS, is_foldable, running_mean_and_variance
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = [
    'Candidates',
    'Group',
    'ModuleCandidate',
    'OutgoingEdges',
    'Plan',
    'Pool',
    'RelaxedNode',
    'Stage',
    'nchw',
    'nhwc',
    'relaxed_nodes',
    'running_statistics',
]

M = TypeVar('M', bound=nn.Module, covariant=True)


class RelaxedNode(NamedTuple):
    """A node of a relaxed cell: the choice of its inputs, and the choice of the operation on each of its edges."""

    inputs: SummedInputs
    edges: list[MixedOperation]


def relaxed_nodes(nodes: nn.ModuleList) -> list[RelaxedNode]:
    """Returns the nodes of a relaxed cell."""
    return [RelaxedNode(node.inputs, list(node.edges)) for node in cast(Any, nodes)]


def nchw(x: Tensor) -> Tensor:
    """Returns a view of shape (B, C, H, W) of a tensor (B, H, W, C)."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """Returns a contiguous tensor (B, H, W, C) from (B, C, H, W); a tensor in channels_last is not copied."""
    return x.permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class Stage:
    """A depthwise convolution, 1×1 convolution and batch norm, for several edges."""

    depthwise: tuple[DepthwiseConv2d, ...]
    pointwise: tuple[PointwiseConv2d, ...]
    norms: tuple[nn.BatchNorm2d, ...]

    @property
    def steps(self) -> tuple[int, int]:
        """The stride and dilation of the depthwise convolutions."""
        return self.depthwise[0].stride[0], self.depthwise[0].dilation[0]


@dataclass(frozen=True)
class Group:
    """A separable (two stages) or dilated (one stage) convolution on all outgoing edges of a state that have it as a candidate.

    Attributes:
        places: indices of these edges among the outgoing edges of the state, in order.
        positions: indices of the candidates' weights among the weights of the cell.
        whole: whether the group covers all outgoing edges of the state.
    """

    places: tuple[int, ...]
    positions: tuple[int, ...]
    stages: tuple[Stage, ...]
    whole: bool

    @property
    def thinned(self) -> bool:
        """Whether the convolution reads every second pixel only, so that it has neither stride nor dilation on a thinned input."""
        return self.stages[0].steps == (2, 2)

    def steps(self, stage: int) -> tuple[int, int]:
        """Returns the stride and dilation of a stage on its input, which may be thinned."""
        return (1, 1) if self.thinned else self.stages[stage].steps


AnyPool = nn.MaxPool2d | nn.AvgPool2d


@dataclass(frozen=True)
class Pool:
    """A pool, and its batch norm on each outgoing edge of a state; the batch norm is None on an edge that lacks the pool."""

    pool: AnyPool
    norms: tuple[nn.BatchNorm2d | None, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class ModuleCandidate(Generic[M]):
    """A candidate on one edge that its own module computes."""

    module: M
    place: int
    position: int


@dataclass
class OutgoingEdges:
    """The candidates on the outgoing edges of one state.

    Attributes:
        first: the first node that may read the state; one edge leads to it and to each later node.
        edges: k, the number of these edges.
        stride: stride of all candidates.
        groups: convolutions that are computed together.
        pools: pools that are computed once for all edges.
        skips: for each edge, index of its identity's weight among the weights of the cell; empty if no edge has an identity.
        reductions: skips that halve height and width.
        unfused: candidates of any other kind.
        bank: indices of the weights of skips and pools among the weights of the cell, of shape (P, k).
    """

    first: int
    edges: int
    stride: int
    groups: list[Group] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    skips: tuple[int, ...] = ()
    reductions: list[ModuleCandidate[FactorizedReduce]] = field(default_factory=list)
    unfused: list[ModuleCandidate[nn.Module]] = field(default_factory=list)
    bank: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    _indices: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @property
    def identities(self) -> int:
        """The number of rows of the bank that belong to an identity: 0 or 1."""
        return int(bool(self.skips))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width of the edges' outputs, for a state of this height and width."""
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    def convolutions(self) -> list[Tensor]:
        """Returns the parameters of all groups, in the order in which gradients are returned."""
        stages = [stage for group in self.groups for stage in group.stages]
        return [module.weight for stage in stages for module in (*stage.depthwise, *stage.pointwise)]

    def remaining(self) -> list[Tensor]:
        """Returns the parameters of all other candidates."""
        modules: list[nn.Module] = [*(one.module for one in self.reductions), *(one.module for one in self.unfused)]
        return [weight for module in modules for weight in module.parameters()]

    def index(self, numbers: Sequence[int]) -> Tensor:
        """Returns numbers as a tensor on the weights' device, and caches it."""
        key = tuple(numbers)
        if key not in self._indices:
            self._indices[key] = torch.tensor(key, dtype=torch.long, device=self.bank.device)
        return self._indices[key]


_MISSING, _DECIDED = 0, 1

Candidates = list[tuple[nn.Module, int]]
"""(module, index of its weight) of each operation that an edge computes."""


class Plan:
    """The computations of a cell, by state, valid until another edge is decided.

    Attributes:
        labels: labels of the edges that are still mixed. The weights of the cell are ``constants`` and then the weights of the
            candidates on these edges.
        constants: weights of a missing candidate and of a decided candidate.
        candidates: state → edge → candidates to compute.
        outgoing: state → candidates on its outgoing edges, grouped by joint computation.
        unfused: modules that compute one candidate each.
        portion: k, if only 1 / k of the channels is searched (PC-DARTS); None if all channels are.
        weighted: whether the edges into a node have weights (PC-DARTS).
        decided: whether any edge of the supernet is decided or dropped.
    """

    def __init__(self, cell: Cell, like: Tensor) -> None:
        nodes = relaxed_nodes(cell.nodes)
        inputs, (first, *_) = nodes[0]
        architecture = first.architecture
        self.portion = first.relaxation.portion
        self.weighted = architecture.inputs()[inputs.label].weighted
        self.decided = bool(architecture.state.fixed or architecture.state.dropped)
        self.nodes, self.training, self.concat = len(cell.nodes), cell.training, cell.concat
        self.constants = like.new_tensor([0.0, 1.0])
        self.labels: list[str] = []
        self.candidates: list[list[Candidates]] = [[] for _ in range(1 + self.nodes)]
        position = len(self.constants)
        for node in nodes:
            for state, edge in enumerate(node.edges):
                here: Candidates = []
                if not architecture.view.is_cut(edge.label):
                    candidates, decided = edge.candidates(), architecture.state.fixed.get(edge.label)
                    if decided is not None:
                        here = [(candidates[decided], _DECIDED)]
                    else:
                        self.labels.append(edge.label)
                        here = [(candidate, position + index) for index, candidate in enumerate(candidates)]
                        position += len(here)
                self.candidates[state].append(here)
        stride = max(_stride(candidate) for candidate in first.candidates())
        self.outgoing = [
            _arranged(max(0, state - 1), edges, stride if state < 2 else 1, like.device) for state, edges in enumerate(self.candidates)
        ]
        self.unfused = [candidate.module for outgoing in self.outgoing for candidate in outgoing.unfused]

    def parameters(self) -> list[Tensor]:
        """Returns the parameters of all candidates, in the order in which gradients are returned."""
        return [weight for outgoing in self.outgoing for weight in outgoing.convolutions()] + [
            weight for outgoing in self.outgoing for weight in outgoing.remaining()
        ]


def _arranged(first: int, edges: Sequence[Candidates], stride: int, device: torch.device) -> OutgoingEdges:
    """Groups the candidates on the outgoing edges of a state by joint computation."""
    outgoing = OutgoingEdges(first, len(edges), stride)
    groups: dict[Hashable, list[tuple[int, int, list[Stage]]]] = {}
    pools: dict[type[AnyPool], dict[int, tuple[AnyPool, nn.BatchNorm2d, int]]] = {}
    skips = [_MISSING] * len(edges)
    for place, candidates in enumerate(edges):
        for module, position in candidates:
            stages, pooling = _stages(module), _pool(module)
            if isinstance(module, Zero):
                continue
            if isinstance(module, nn.Identity):
                skips[place] = position
            elif pooling is not None:
                pools.setdefault(type(pooling[0]), {})[place] = *pooling, position
            elif stages:
                key = tuple((stage.depthwise[0].kernel_size, stage.steps) for stage in stages)
                groups.setdefault(key, []).append((place, position, stages))
            elif _is_reduction(module):
                outgoing.reductions.append(ModuleCandidate(module, place, position))
            else:
                outgoing.unfused.append(ModuleCandidate(module, place, position))
    for members in groups.values():
        places, positions, each = zip(*members)
        joined = tuple(
            Stage(
                *(tuple(chain.from_iterable(parts)) for parts in zip(*((stage.depthwise, stage.pointwise, stage.norms) for stage in same)))
            )
            for same in zip(*each)
        )
        outgoing.groups.append(Group(places, positions, joined, len(places) == len(edges)))
    for by_place in pools.values():
        pool = next(iter(by_place.values()))[0]
        norms = tuple(by_place[place][1] if place in by_place else None for place in range(len(edges)))
        of_weights = tuple(by_place[place][2] if place in by_place else _MISSING for place in range(len(edges)))
        outgoing.pools.append(Pool(pool, norms, of_weights))
    outgoing.skips = tuple(skips) if any(skips) else ()
    rows = [*([outgoing.skips] if outgoing.skips else []), *(entry.positions for entry in outgoing.pools)]
    outgoing.bank = torch.tensor(rows, dtype=torch.long, device=device).view(len(rows), len(edges))
    return outgoing


def _stride(candidate: nn.Module) -> int:
    strides = [module.stride for module in candidate.modules() if isinstance(module, Zero | nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)]
    return max((max(stride) if isinstance(stride, tuple) else stride for stride in strides), default=1)


def _stages(module: nn.Module) -> list[Stage]:
    """Returns the stages of a separable or dilated convolution; empty for any other module."""
    if not isinstance(module, nn.Sequential) or len(module) not in (4, 8):
        return []
    stages = []
    for start in range(0, len(module), 4):
        relu, spatial, pointwise, norm = module[start : start + 4]
        if not (isinstance(relu, nn.ReLU) and isinstance(spatial, DepthwiseConv2d) and isinstance(pointwise, PointwiseConv2d)):
            return []
        if not is_foldable(norm) or (start and spatial.stride != (1, 1)) or pointwise.stride != (1, 1):
            return []
        stages.append(Stage((spatial,), (pointwise,), (norm,)))
    return stages


def _pool(module: nn.Module) -> tuple[AnyPool, nn.BatchNorm2d] | None:
    """Returns the parts of a 3×3 pool with a batch norm behind it; None for any other module."""
    if not isinstance(module, nn.Sequential) or len(module) != 2:
        return None
    pool, norm = module
    if not isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) or (pool.kernel_size, pool.padding) != (3, 1) or not is_foldable(norm):
        return None
    return pool, norm


def _is_reduction(module: nn.Module) -> TypeGuard[FactorizedReduce]:
    """Returns whether a module is a skip that halves height and width, with equally many channels in both halves."""
    return isinstance(module, FactorizedReduce) and module.conv_1.out_channels == module.conv_2.out_channels and is_foldable(module.bn)


def running_statistics(outgoing: OutgoingEdges, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and 1 / √(variance + ε) of skips and pools on each edge, each (P, k, C); 0 and 1 without a batch norm."""
    shape = len(outgoing.bank), outgoing.edges, like.shape[-1]
    mean, var = like.new_zeros(shape), like.new_full(shape, 1 - EPS)
    for row, entry in enumerate(outgoing.pools, outgoing.identities):
        for place, norm in enumerate(entry.norms):
            if norm is not None:
                mean[row, place], var[row, place] = running_mean_and_variance(norm)
    return mean, torch.rsqrt(var + EPS)
