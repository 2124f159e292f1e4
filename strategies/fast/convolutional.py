"""The relaxed convolutional cell: sorts out what there is to compute, and which of the two ways computes it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nni_darts.search_spaces.cell import Cell, ChoiceNode
from nni_darts.search_spaces.operations import Noise
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.joined import joined
from nni_darts.strategies.fast.kernels import kernels
from nni_darts.strategies.fast.plan import Plan
from nni_darts.strategies.fast.streamed import streamed
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastCell', 'is_suited']

LARGE = 2**17
"""From how many numbers in all copies of a state on its edges a cell is computed piece by piece on the CPU without compiled kernels."""


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

    def __init__(self, cell: Cell, *, checkpoint: bool = False) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)
        self.checkpoint = checkpoint
        self._plans: dict[Any, Plan] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_plans': {}}  # a plan refers to modules, and a copy has others

    def forward(self, older: Tensor, previous: Tensor) -> Tensor:
        """As for :class:`Cell`."""
        if not all(isinstance(node, ChoiceNode) for node in self.nodes):
            return super().forward(older, previous)  # a frozen copy of a supernet has fixed nodes
        edge = self.nodes[0].edges[0]
        if edge.architecture.masked is not None:
            return super().forward(older, previous)  # scoring shares results among plain modules
        states = self.preprocess_0(older), self.preprocess_1(previous)
        plan = self._plan(states[0])
        weights = [edge.relaxation.weights(label, edge.architecture.alpha(label)) for label in plan.labels]
        weights = torch.cat([plan.constants, *weights])
        running = RunningStatistics(self._count(states[0], plan))
        # Autocast would round the moments that the streamed batch norms are made of.
        on_cpu = states[0].device.type == 'cpu' and not torch.is_autocast_enabled('cpu')
        if on_cpu and (plan.nodes * states[0].numel() >= LARGE or kernels(states[0]) is not None):
            output = streamed(self, plan, running, weights, *states, checkpoint=self.checkpoint)
        elif self.checkpoint and torch.is_grad_enabled() and not plan.others:
            # Computed again in backward, where what is noted of running statistics is not written.
            output = checkpoint(joined, plan, running, weights, *states, use_reentrant=False, preserve_rng_state=False)
        else:
            output = joined(plan, running, weights, *states)
        running.write()
        return output

    def _count(self, state: Tensor, plan: Plan) -> int:
        """How many numbers each batch norm sees. Raises ValueError for too few."""
        count = len(state) * math.prod(plan.leaving[0].size(*state.shape[2:]))
        if self.training and count == 1:
            raise ValueError('batch norm cannot train on one number for each channel: use larger batches or images')
        return count

    def _plan(self, state: Tensor) -> Plan:
        """What there is to compute; it stays the same until an edge is decided."""
        architecture = self.nodes[0].edges[0].architecture
        decided = tuple((architecture.is_cut(edge.label), architecture.fixed.get(edge.label)) for node in self.nodes for edge in node.edges)
        key = (state.device, state.dtype, self.training, decided)
        if key not in self._plans:
            self._plans = {other: plan for other, plan in self._plans.items() if other[-1] == decided}
            self._plans[key] = Plan(self, state)
        return self._plans[key]
