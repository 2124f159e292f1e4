"""The relaxed convolutional cell: plans its computations and has an executor carry them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nni_darts.search_spaces.cell import Cell, ChoiceNode
from nni_darts.search_spaces.operations import Noise
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.fast.executors import ExecutedCell, Executor, ExecutorChoice, by_name
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.joined import joined
from nni_darts.strategies.fast.partial import partial_channels
from nni_darts.strategies.fast.plan import Plan
from nni_darts.strategies.fast.streamed import Stream, streamed
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastCell', 'is_suited']

SAMPLED_NUMBERS = 14 * 2**14
"""Numbers of an image's states on all edges, for each thread, on which executors are timed; one image for each thread at least."""


def is_suited(cell: nn.Module) -> bool:
    """Whether it is a relaxed cell that :class:`FastCell` can take over."""
    return type(cell) is Cell and all(
        isinstance(node, ChoiceNode)
        and isinstance(node.inputs, SummedInputs)
        and all(isinstance(edge, MixedOperation) for edge in node.edges)
        # Noise must be drawn in the order of the plain execution.
        and not any(isinstance(candidate, Noise) for edge in node.edges for candidate in edge.candidates())
        for node in cell.nodes
    )


class _Plain(Executor):
    """The cell itself."""

    name = 'plain'

    def __call__(self, cell: FastCell, plan: Plan, older: Tensor, previous: Tensor) -> Tensor:
        return Cell.forward(cell, older, previous)


class _Joined(Executor):
    """Few operations on many channels."""

    name = 'joined'

    def computes(self, plan: Plan) -> bool:
        return plan.portion is None

    def __call__(self, cell: FastCell, plan: Plan, older: Tensor, previous: Tensor) -> Tensor:
        states = cell.preprocess_0(older), cell.preprocess_1(previous)
        weights, _ = cell.weights(plan)
        running = cell.running_statistics(plan, states[0])
        if cell.checkpoint and torch.is_grad_enabled() and not plan.unfused:
            # Computed again in backward, where what is noted of running statistics is not written.
            output = checkpoint(joined, plan, running, weights, *states, use_reentrant=False, preserve_rng_state=False)
        else:
            output = joined(plan, running, weights, *states)
        running.write()
        return output


class _Streamed(Executor):
    """A cell as one node of autograd's graph."""

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
    """Torch's operations on pieces of a batch."""

    name = 'piecewise'

    def computes(self, plan: Plan) -> bool:
        return plan.portion is None


class _Compiled(_Streamed):
    """Kernels in C++; of PC-DARTS' cells until something is decided."""

    name = 'compiled'

    def computes(self, plan: Plan) -> bool:
        return plan.portion is None or not plan.decided


class FastCell(ExecutedCell, Cell):
    """A relaxed cell. Takes over the modules of the plain one."""

    executors = by_name(_Compiled(), _Piecewise(), _Joined(), _Plain())

    def __init__(self, cell: Cell, choice: ExecutorChoice, *, checkpoint: bool = False) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)
        self.choice = choice
        self.checkpoint = checkpoint
        self._plans: dict[Any, Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_plans': {}}  # a plan refers to modules, and a copy has others

    def forward(self, older: Tensor, previous: Tensor) -> Tensor:
        """As for :class:`Cell`."""
        # A frozen copy of a supernet has fixed nodes; scoring shares results among plain modules.
        if not all(isinstance(node, ChoiceNode) for node in self.nodes) or self._architecture.view.mask is not None:
            return super().forward(older, previous)
        return self.execute(self.choice(self, older, previous), older, previous)

    def weights(self, plan: Plan) -> tuple[Tensor, list[list[Tensor]]]:
        """Returns the weights of candidates as the plan orders them and, in PC-DARTS, state → those of its outgoing edges."""
        architecture, relaxation = self._architecture, self.nodes[0].edges[0].relaxation
        if plan.portion is None:
            weights = [relaxation.weights(label, architecture.alpha(label)) for label in plan.labels]
            return torch.cat([plan.constants, *weights]), []
        edges: list[list[Tensor]] = [[] for _ in plan.outgoing]
        weights = [plan.constants]
        for node in self.nodes:
            of_edges = architecture.edge_weights(node.inputs.label) if plan.weighted else plan.constants[1:].expand(len(node.edges))
            for state, (edge, weight) in enumerate(zip(node.edges, of_edges.unbind())):
                edges[state].append(weight)
                weights.append(weight * relaxation.weights(edge.label, architecture.alpha(edge.label)))
        return torch.cat(weights), edges

    def running_statistics(self, plan: Plan, state: Tensor) -> RunningStatistics:
        """Returns new running statistics for all batch norms. Raises ValueError if each of them sees too few numbers."""
        count = len(state) * math.prod(plan.outgoing[0].size(*state.shape[2:]))
        if self.training and count == 1:
            raise ValueError('batch norm cannot train on one number for each channel: use larger batches or images')
        return RunningStatistics(count)

    def sample(self, older: Tensor, previous: Tensor, *, portion: int) -> tuple[Tensor, Tensor]:
        """As :meth:`.ExecutedCell.sample`: the first images, and at least two, which batch norms need."""
        edges = sum(len(node.edges) for node in self.nodes)
        channels = next((module.out_channels for module in self.preprocess_1.modules() if isinstance(module, nn.Conv2d)), previous.shape[1])
        numbers = edges * channels * math.prod(previous.shape[2:])
        images = portion * max(2, torch.get_num_threads() * max(1, SAMPLED_NUMBERS // numbers))
        if len(previous) == 1:
            return torch.cat([older, older]), torch.cat([previous, previous])
        return older[:images], previous[:images]

    def structure(self) -> str:
        """As :meth:`.ExecutedCell.structure`."""
        return f'{self} {self._architecture.state.fixed} {self._architecture.state.dropped} {self.checkpoint}'

    def alphas(self) -> Sequence[Tensor]:
        """As :meth:`.ExecutedCell.alphas`."""
        return self._architecture.arch_parameters()

    @property
    def _architecture(self) -> Architecture:
        return self.nodes[0].edges[0].architecture

    def plan(self, like: Tensor) -> Plan:
        """As :meth:`.ExecutedCell.plan`; it stays the same until an edge is decided."""
        architecture = self._architecture
        decided = tuple(
            (architecture.view.is_cut(edge.label), architecture.state.fixed.get(edge.label)) for node in self.nodes for edge in node.edges
        )
        decisions = decided, bool(architecture.state.fixed or architecture.state.dropped)
        key = like.device, like.dtype, self.training, decisions
        if key not in self._plans:
            self._plans = {known: plan for known, plan in self._plans.items() if known[-1] == decisions}
            self._plans[key] = Plan(self, like)
        return self._plans[key]
