"""The relaxed convolutional cell, whose planned computations an executor carries out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nni_darts.search_spaces.cell import Cell, ChoiceNode
from nni_darts.search_spaces.operations import Noise
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.fast.executors import CellInputs, ExecutedCell, Executor, ExecutorChoice, by_name
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.joined import joined
from nni_darts.strategies.fast.partial import partial_channels
from nni_darts.strategies.fast.plan import Plan, relaxed_nodes
from nni_darts.strategies.fast.streamed import Stream, streamed
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastCell', 'is_suited']

SAMPLED_NUMBERS = 14 * 2**14
"""Numbers in the states on all edges per thread, on which executors are timed; at least one image per thread is used."""


def is_suited(cell: nn.Module) -> TypeGuard[Cell]:
    """Returns whether a module is a relaxed cell that :class:`FastCell` can replace."""
    return type(cell) is Cell and all(
        isinstance(node, ChoiceNode)
        and isinstance(node.inputs, SummedInputs)
        and all(isinstance(edge, MixedOperation) and not any(map(_draws, edge.candidates())) for edge in node.edges)
        for node in cell.nodes
    )


def _draws(candidate: nn.Module) -> bool:
    """Returns whether a candidate draws random numbers, which must be drawn in the order of the plain execution."""
    return isinstance(candidate, Noise)


class _Plain(Executor):
    """Computes each candidate by its own module."""

    name = 'plain'

    def __call__(self, cell: FastCell, plan: Plan, older: Tensor, previous: Tensor) -> Tensor:
        return Cell.forward(cell, older, previous)


class _Joined(Executor):
    """Joins the candidates on outgoing edges into few operations on many channels."""

    name = 'joined'

    def computes(self, plan: Plan) -> bool:
        return plan.portion is None

    def __call__(self, cell: FastCell, plan: Plan, older: Tensor, previous: Tensor) -> Tensor:
        states = cell.preprocess_0(older), cell.preprocess_1(previous)
        weights, _ = cell.weights(plan)
        running = cell.running_statistics(plan, states[0])
        if cell.checkpoint and torch.is_grad_enabled() and not plan.unfused:
            # Recomputed in the backward pass, which must not update running statistics again.
            output = checkpoint(joined, plan, running, weights, *states, use_reentrant=False, preserve_rng_state=False)
        else:
            output = joined(plan, running, weights, *states)
        running.write()
        return output


class _Streamed(Executor):
    """Computes a cell as one node of autograd's graph."""

    def __call__(self, cell: FastCell, plan: Plan, older: Tensor, previous: Tensor) -> Tensor:
        states = cell.preprocess_0(older), cell.preprocess_1(previous)
        weights, edges = cell.weights(plan)
        running = cell.running_statistics(plan, states[0])
        keep = torch.is_grad_enabled() and not cell.checkpoint
        stream = Stream(plan, running, compiled=self.name == 'compiled', keep=keep)
        if plan.portion is None:
            output = streamed(cell, stream, weights, *states)
        else:
            output = partial_channels(stream, weights, edges, *states)
        running.write()
        return output


class _Piecewise(_Streamed):
    """Computes a cell by torch's operations on pieces of a batch."""

    name = 'piecewise'

    def computes(self, plan: Plan) -> bool:
        return plan.portion is None


class _Compiled(_Streamed):
    """Computes a cell by kernels in C++; PC-DARTS' cells only until an edge is decided."""

    name = 'compiled'

    def computes(self, plan: Plan) -> bool:
        return plan.portion is None or not plan.decided


class _PlanKey(NamedTuple):
    """The conditions under which a plan is valid.

    Attributes:
        decisions: whether each edge of the cell is cut, and the operation it was decided for; and whether the supernet has any decision.
    """

    device: torch.device
    dtype: torch.dtype
    training: bool
    decisions: tuple[tuple[tuple[bool, int | None], ...], bool]


class FastCell(ExecutedCell, Cell):
    """A relaxed cell that several executors can compute, with the modules of the plain cell."""

    executors = by_name(_Compiled(), _Piecewise(), _Joined(), _Plain())

    def __init__(self, cell: Cell, choice: ExecutorChoice, *, checkpoint: bool = False) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)
        self.choice = choice
        self.checkpoint = checkpoint
        self._plans: dict[_PlanKey, Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_plans': {}}  # a plan refers to modules, and a copy has its own modules

    def forward(self, older: Tensor, previous: Tensor) -> Tensor:
        """Computes the output of the cell from the two preceding outputs, as :class:`Cell` does."""
        # A frozen copy of a supernet has fixed nodes; scoring shares results among plain modules.
        if not all(isinstance(node, ChoiceNode) for node in self.nodes) or self._architecture.view.mask is not None:
            return super().forward(older, previous)
        return self.execute(self.choice(self, older, previous), older, previous)

    def weights(self, plan: Plan) -> tuple[Tensor, list[list[Tensor]]]:
        """Returns the weights of candidates as the plan orders them and, in PC-DARTS, state → weights of its outgoing edges."""
        nodes = relaxed_nodes(self.nodes)
        architecture, relaxation = self._architecture, nodes[0].edges[0].relaxation
        if plan.portion is None:
            weights = [relaxation.used_weights(label, architecture.alpha(label), id(self)) for label in plan.labels]
            return torch.cat([plan.constants, *weights]), []
        edges: list[list[Tensor]] = [[] for _ in plan.outgoing]
        weights = [plan.constants]
        for node in nodes:
            of_edges = architecture.edge_weights(node.inputs.label) if plan.weighted else plan.constants[1:].expand(len(node.edges))
            for state, (edge, weight) in enumerate(zip(node.edges, of_edges.unbind())):
                edges[state].append(weight)
                weights.append(weight * relaxation.used_weights(edge.label, architecture.alpha(edge.label), id(self)))
        return torch.cat(weights), edges

    def running_statistics(self, plan: Plan, state: Tensor) -> RunningStatistics:
        """Returns new running statistics for all batch norms. Raises ValueError if the inputs have one value for each channel."""
        count = len(state) * math.prod(plan.outgoing[0].size(*state.shape[2:]))
        if self.training and count == 1:
            raise ValueError('batch norm cannot train on one number for each channel: use larger batches or images')
        return RunningStatistics(count)

    def sample(self, *inputs: Any, portion: int) -> CellInputs:
        """Returns the first images, at least two because of batch norms, as :meth:`.ExecutedCell.sample` does."""
        older, previous = inputs
        edges = sum(len(node.edges) for node in relaxed_nodes(self.nodes))
        channels = next((module.out_channels for module in self.preprocess_1.modules() if isinstance(module, nn.Conv2d)), previous.shape[1])
        numbers = edges * channels * math.prod(previous.shape[2:])
        images = portion * max(2, torch.get_num_threads() * max(1, SAMPLED_NUMBERS // numbers))
        if len(previous) == 1:
            return torch.cat([older, older]), torch.cat([previous, previous])
        return older[:images], previous[:images]

    def structure(self) -> str:
        """Returns a text that is equal for cells with the same computations."""
        return f'{self} {self._architecture.state.fixed} {self._architecture.state.dropped} {self.checkpoint}'

    def alphas(self) -> Sequence[Tensor]:
        """Returns all α of the supernet."""
        return self._architecture.arch_parameters()

    @property
    def _architecture(self) -> Architecture:
        return relaxed_nodes(self.nodes)[0].inputs.architecture

    def plan(self, like: Tensor) -> Plan:
        """Returns the plan, as :meth:`.ExecutedCell.plan` does; it is valid until another edge is decided."""
        architecture = self._architecture
        edges = tuple(
            (architecture.view.is_cut(edge.label), architecture.state.fixed.get(edge.label))
            for node in relaxed_nodes(self.nodes)
            for edge in node.edges
        )
        decided = bool(architecture.state.fixed or architecture.state.dropped)
        key = _PlanKey(like.device, like.dtype, self.training, (edges, decided))
        if key not in self._plans:
            self._plans = {known: plan for known, plan in self._plans.items() if known.decisions == key.decisions}
            self._plans[key] = Plan(self, like)
        return self._plans[key]
