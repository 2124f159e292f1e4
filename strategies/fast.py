"""The relaxed cells of our convolutional spaces, computed fast: the same numbers from the same parameters.

What the plain execution does edge by edge and candidate by candidate is arranged by state here:

- What has no parameters is computed once for each state, however many edges leave it: its ReLU, its pools with their batch norms (which
  are not affine, so that all edges' are equal). ``none`` is never computed.
- The weight of a candidate becomes the weight of its last batch norm, so no weighted copy of its output is made.
- A node's sum is added up in place.

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces.cell import Cell, ChoiceNode
from nni_darts.search_spaces.operations import FactorizedReduce, Noise, Zero
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastCell', 'accelerate']

Pool = nn.MaxPool2d | nn.AvgPool2d


def accelerate(model: nn.Module, relaxation: Relaxation) -> None:
    """Replaces the cells of a supernet that can be computed fast, in place.

    A relaxation must mix candidates by weights (softmax and what differs from it only in its weights), and edges have no weights of
    their own; other supernets stay as they are.
    """
    plain = type(relaxation)
    if plain.mix is not Relaxation.mix or plain.around is not Relaxation.around or relaxation.weighted_edges:
        return
    found = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children() if _is_suited(child)]
    for parent, name, child in found:
        setattr(parent, name, FastCell(child))


def _is_suited(cell: nn.Module) -> bool:
    return type(cell) is Cell and all(
        isinstance(node, ChoiceNode)
        and isinstance(node.inputs, SummedInputs)
        and all(isinstance(edge, MixedOperation) for edge in node.edges)
        # Noise must be drawn in the order of the plain execution.
        and not any(isinstance(candidate, Noise) for edge in node.edges for candidate in edge.candidates())
        for node in cell.nodes
    )


class FastCell(Cell):
    """A relaxed cell. Takes over the modules of the plain one."""

    def __init__(self, cell: Cell) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)

    def forward(self, older: Tensor, previous: Tensor) -> Tensor:
        """As for :class:`Cell`."""
        if not all(isinstance(node, ChoiceNode) for node in self.nodes):
            return super().forward(older, previous)  # a frozen copy of a supernet has fixed nodes
        architecture = self.nodes[0].inputs.architecture
        if architecture.masked is not None:
            return super().forward(older, previous)  # scoring shares results among plain modules
        states = [self.preprocess_0(older), self.preprocess_1(previous)]
        norms = _Norms()
        sums = [_Sum() for _ in self.nodes]
        for place in range(2 + len(self.nodes)):
            if place >= 2:
                states.append(sums[place - 2].value)
            leaving = [(node.edges[place], total) for node, total in zip(self.nodes[max(0, place - 1) :], sums[max(0, place - 1) :])]
            self._leave(states[place], [(edge, total) for edge, total in leaving if not architecture.is_cut(edge.label)], norms)
        norms.finish()
        return torch.cat([states[index] for index in self.concat], dim=1)

    def _leave(self, state: Tensor, edges: Sequence[tuple[MixedOperation, _Sum]], norms: _Norms) -> None:
        """Adds to the nodes' sums what the edges from one state carry there."""
        source = _Source(state, norms)
        for edge, total in edges:
            decided = edge.architecture.fixed.get(edge.label)
            candidates = edge.candidates()
            if decided is not None:
                source.add(candidates[decided], None, None, total)
                continue
            weights = edge.relaxation.weights(edge.label, edge.architecture.alpha(edge.label))
            # A row for each candidate: what its last batch norm takes. Contiguous, as batch norm's backward wants it in channels_last.
            rows = weights.unsqueeze(1).repeat(1, state.shape[1]).unbind()
            for candidate, weight, row in zip(candidates, weights.unbind(), rows):
                source.add(candidate, weight, row, total)


class _Sum:
    """A sum that is added up in place, once it holds a tensor of its own."""

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._own = False

    @property
    def value(self) -> Tensor:
        assert self._value is not None  # an edge has an operation besides none
        return self._value

    def add(self, term: Tensor, weight: Tensor | None = None, *, own: bool = False) -> None:
        """Adds ``weight · term``; ``own`` says that nobody else reads the term."""
        if self._value is None:
            self._value, self._own = (term, own) if weight is None else (term * weight, True)
        elif not self._own:
            self._value, self._own = (self._value + term if weight is None else torch.addcmul(self._value, term, weight)), True
        elif weight is None:
            self._value.add_(term)
        else:
            self._value.addcmul_(term, weight)


class _Norms:
    """Batch norms with a weight that is not theirs; what they count, and what one computed for others, is written for all at once."""

    def __init__(self) -> None:
        self._counters: list[Tensor] = []
        self._followers: list[Tensor] = []
        self._leaders: list[Tensor] = []

    def __call__(self, norm: nn.BatchNorm2d, x: Tensor, weight: Tensor | None) -> Tensor:
        batch_statistics = norm.training or norm.running_mean is None
        if norm.training and norm.num_batches_tracked is not None:
            self._counters.append(norm.num_batches_tracked)
        return functional.batch_norm(x, norm.running_mean, norm.running_var, weight, None, batch_statistics, norm.momentum, norm.eps)

    def follow(self, norm: nn.BatchNorm2d, leader: nn.BatchNorm2d) -> None:
        """Another batch norm has normalised the same: its running statistics are this one's, too."""
        self._counters.append(norm.num_batches_tracked)
        self._followers += [norm.running_mean, norm.running_var]
        self._leaders += [leader.running_mean, leader.running_var]

    def finish(self) -> None:
        """Counts this batch and copies running statistics."""
        if self._counters:
            torch._foreach_add_(self._counters, 1)
        if self._followers:
            with torch.no_grad():
                torch._foreach_copy_(self._followers, self._leaders)


class _Source:
    """One state, and what several edges that leave it need of it."""

    def __init__(self, state: Tensor, norms: _Norms) -> None:
        self.state = state
        self.norms = norms
        self._relu: Tensor | None = None
        self._pooled: dict[Any, Tensor] = {}
        self._normed: dict[Any, tuple[nn.BatchNorm2d, Tensor]] = {}

    def relu(self) -> Tensor:
        """ReLU of the state."""
        if self._relu is None:
            self._relu = functional.relu(self.state)
        return self._relu

    def add(self, operation: nn.Module, weight: Tensor | None, row: Tensor | None, total: _Sum) -> None:
        """Adds ``weight · operation(state)`` to a sum.

        Args:
            weight: a scalar, and ``row`` its repetition for each channel; None for a decided operation.
        """
        if isinstance(operation, Zero):
            if weight is None:
                total.add(operation(self.state), own=True)
        elif isinstance(operation, nn.Identity):
            total.add(self.state, weight)
        elif isinstance(operation, FactorizedReduce) and _is_foldable(operation.bn):
            total.add(self.norms(operation.bn, operation.reduce(self.relu()), row), own=True)
        elif _is_pool(operation):
            self._add_pool(operation[0], operation[1], weight, row, total)
        elif isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.ReLU) and _is_foldable(operation[-1]):
            total.add(self.norms(operation[-1], self._inside(operation), row), own=True)
        else:
            total.add(operation(self.state), weight)

    def _inside(self, operation: nn.Sequential) -> Tensor:
        """A separable or dilated convolution without its first ReLU and its last batch norm."""
        x = self.relu()
        for layer in operation[1:-1]:
            if isinstance(layer, nn.ReLU):
                x = functional.relu_(x)  # of a batch norm that nobody else reads
            else:
                x = self.norms(layer, x, None) if _is_foldable(layer) else layer(x)
        return x

    def _add_pool(self, pool: Pool, norm: nn.BatchNorm2d, weight: Tensor | None, row: Tensor | None, total: _Sum) -> None:
        key = (type(pool), pool.stride)
        if key not in self._pooled:
            self._pooled[key] = pool(self.state)
        pooled = self._pooled[key]
        if not norm.training:
            total.add(self.norms(norm, pooled, row), own=True)  # every edge has running statistics of its own
        elif key not in self._normed:
            self._normed[key] = norm, self.norms(norm, pooled, None)
            total.add(self._normed[key][1], weight)
        else:
            leader, normed = self._normed[key]
            self.norms.follow(norm, leader)
            total.add(normed, weight)


def _is_foldable(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and not module.affine and module.momentum is not None


def _is_pool(operation: nn.Module) -> bool:
    return (
        isinstance(operation, nn.Sequential)
        and len(operation) == 2
        and isinstance(operation[0], Pool)
        and _is_foldable(operation[1])
        and operation[1].track_running_stats
    )
