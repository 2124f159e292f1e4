"""The relaxed convolutional cell: sorts out what there is to compute, and has an executor compute it."""

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
from nni_darts.strategies.fast.executors import ExecutorChoice
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.joined import joined
from nni_darts.strategies.fast.plan import Plan
from nni_darts.strategies.fast.streamed import streamed
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


class FastCell(Cell):
    """A relaxed cell. Takes over the modules of the plain one."""

    executors = ('compiled', 'piecewise', 'joined', 'plain')

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
        if not all(isinstance(node, ChoiceNode) for node in self.nodes):
            return super().forward(older, previous)  # a frozen copy of a supernet has fixed nodes
        if self._architecture.masked is not None:
            return super().forward(older, previous)  # scoring shares results among plain modules
        return self.execute(self.choice(self, older, previous), older, previous)

    def execute(self, name: str, older: Tensor, previous: Tensor) -> Tensor:
        """As :meth:`.Executable.execute`."""
        if name == 'plain':
            return Cell.forward(self, older, previous)
        edge = self.nodes[0].edges[0]
        states = self.preprocess_0(older), self.preprocess_1(previous)
        plan = self._plan(states[0])
        weights = [edge.relaxation.weights(label, edge.architecture.alpha(label)) for label in plan.labels]
        weights = torch.cat([plan.constants, *weights])
        running = RunningStatistics(self._count(states[0], plan))
        if name in ('compiled', 'piecewise'):
            output = streamed(self, plan, running, weights, *states, compiled=name == 'compiled', checkpoint=self.checkpoint)
        elif self.checkpoint and torch.is_grad_enabled() and not plan.others:
            # Computed again in backward, where what is noted of running statistics is not written.
            output = checkpoint(joined, plan, running, weights, *states, use_reentrant=False, preserve_rng_state=False)
        else:
            output = joined(plan, running, weights, *states)
        running.write()
        return output

    def sample(self, older: Tensor, previous: Tensor, *, portion: int) -> tuple[Tensor, Tensor]:
        """As :meth:`.Executable.sample`: the first images, and at least two, which batch norms need."""
        edges = sum(len(node.edges) for node in self.nodes)
        channels = next((module.out_channels for module in self.preprocess_1.modules() if isinstance(module, nn.Conv2d)), previous.shape[1])
        numbers = edges * channels * math.prod(previous.shape[2:])
        images = portion * max(2, torch.get_num_threads() * max(1, SAMPLED_NUMBERS // numbers))
        if len(previous) == 1:
            return torch.cat([older, older]), torch.cat([previous, previous])
        return older[:images], previous[:images]

    def structure(self) -> str:
        """As :meth:`.Executable.structure`."""
        return f'{self} {self._architecture.fixed} {self._architecture.dropped} {self.checkpoint}'

    def alphas(self) -> Sequence[Tensor]:
        """As :meth:`.Executable.alphas`."""
        return self._architecture.arch_parameters()

    @property
    def _architecture(self) -> Architecture:
        return self.nodes[0].edges[0].architecture

    def _count(self, state: Tensor, plan: Plan) -> int:
        """How many numbers each batch norm sees. Raises ValueError for too few."""
        count = len(state) * math.prod(plan.leaving[0].size(*state.shape[2:]))
        if self.training and count == 1:
            raise ValueError('batch norm cannot train on one number for each channel: use larger batches or images')
        return count

    def _plan(self, state: Tensor) -> Plan:
        """Returns the plan of the computations, which stays the same until an edge is decided."""
        architecture = self._architecture
        decided = tuple((architecture.is_cut(edge.label), architecture.fixed.get(edge.label)) for node in self.nodes for edge in node.edges)
        key = (state.device, state.dtype, self.training, decided)
        if key not in self._plans:
            self._plans = {other: plan for other, plan in self._plans.items() if other[-1] == decided}
            self._plans[key] = Plan(self, state)
        return self._plans[key]
