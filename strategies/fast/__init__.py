"""The relaxed cells of our convolutional spaces, computed fast: the same numbers from the same parameters.

What the plain execution does edge by edge and candidate by candidate is arranged by state here, and what leaves a state is computed
together (docs/performance.md has a picture). There are two ways, for two things that time is spent on:

- :mod:`.joined`: few operations on many channels, where each costs more than what it computes: GPUs, and small images anywhere;
- :mod:`.streamed`: little to move to and from memory, and little to keep for backward: large images on the CPU.

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nni_darts.search_spaces.cell import Cell, ChoiceNode
from nni_darts.search_spaces.operations import Noise
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.joined import joined
from nni_darts.strategies.fast.plan import Plan
from nni_darts.strategies.fast.streamed import streamed
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastCell', 'accelerate']

LARGE = 2**20
"""From how many numbers in all copies of a state on its edges a cell is computed piece by piece on the CPU."""


def accelerate(model: nn.Module, relaxation: Relaxation, *, checkpoint: bool = False) -> None:
    """Replaces the cells of a supernet that can be computed fast, in place.

    A relaxation must mix candidates by weights (softmax and what differs from it only in its weights), and edges have no weights of
    their own; other supernets stay as they are.

    Args:
        checkpoint: keep only the states of a cell for backward, and compute the rest again there.
    """
    plain = type(relaxation)
    if plain.mix is not Relaxation.mix or plain.around is not Relaxation.around or relaxation.weighted_edges:
        return
    found = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children() if _is_suited(child)]
    for parent, name, child in found:
        setattr(parent, name, FastCell(child, checkpoint=checkpoint))


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
        running = RunningStatistics()
        large = states[0].device.type == 'cpu' and plan.nodes * states[0].numel() >= LARGE
        # Autocast would round the moments that the streamed batch norms are made of.
        if large and not torch.is_autocast_enabled('cpu'):
            output = streamed(self, plan, running, weights, *states, checkpoint=self.checkpoint)
        elif self.checkpoint and torch.is_grad_enabled() and not plan.others:
            # Computed again in backward, where what is noted of running statistics is not written.
            output = checkpoint(joined, plan, running, weights, *states, use_reentrant=False, preserve_rng_state=False)
        else:
            output = joined(plan, running, weights, *states)
        running.write(states[0].shape[0] * output.shape[2] * output.shape[3])
        return output

    def _plan(self, state: Tensor) -> Plan:
        """What there is to compute; it stays the same until an edge is decided."""
        architecture = self.nodes[0].edges[0].architecture
        decided = tuple((architecture.is_cut(edge.label), architecture.fixed.get(edge.label)) for node in self.nodes for edge in node.edges)
        key = (state.device, state.dtype, self.training, decided)
        if key not in self._plans:
            self._plans = {other: plan for other, plan in self._plans.items() if other[-1] == decided}
            self._plans[key] = Plan(self, state)
        return self._plans[key]
