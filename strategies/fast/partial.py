"""The cell of PC-DARTS, computed fast on the CPU: what goes through the operations by state, what goes around them in few operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nni_darts.search_spaces.cell import Cell, ChoiceNode
from nni_darts.strategies.fast.convolutional import FastCell
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.plan import Plan, nchw, nhwc
from nni_darts.strategies.fast.streamed import streamed_state

__all__ = ['FastPartialCell']


class FastPartialCell(FastCell):
    """A relaxed cell of :class:`.relaxations.PartialChannels`. Takes over the modules of the plain one.

    The weights of edges are part of those of their operations. Plain from the first decision on.
    """

    executors = ('compiled', 'plain')

    def forward(self, older: Tensor, previous: Tensor) -> Tensor:
        """As for :class:`Cell`."""
        if not all(isinstance(node, ChoiceNode) for node in self.nodes):
            return Cell.forward(self, older, previous)  # a frozen copy of a supernet has fixed nodes
        architecture = self._architecture
        if architecture.masked is not None or architecture.fixed or architecture.dropped:
            return Cell.forward(self, older, previous)
        return self.execute(self.choice(self, older, previous), older, previous)

    def execute(self, name: str, older: Tensor, previous: Tensor) -> Tensor:
        """As :meth:`.Executable.execute`."""
        if name == 'plain':
            return Cell.forward(self, older, previous)
        states = [nhwc(self.preprocess_0(older)), nhwc(self.preprocess_1(previous))]
        plan = self._plan(nchw(states[0]))
        weights, edges = self._weights(plan)
        running = RunningStatistics(self._count(nchw(states[0]), plan))
        searched: list[Tensor] = []  # what has reached each node that still lacks inputs, (B, H, W, C / k)
        passed: list[Tensor] = []  # (B, H, W, C - C / k)
        for state, leaving in enumerate(plan.leaving):
            if state >= 2:
                states.append(self._shuffled(searched.pop(0), passed.pop(0)))
            x = states[state]
            part = x.shape[3] // self._portion
            through = streamed_state(plan, state, running, weights, x[..., :part].contiguous(), compiled=True, checkpoint=self.checkpoint)
            bypass = self._around(x[..., part:], leaving.stride)
            around = [weight * bypass for weight in edges[state]]
            searched = [a + b for a, b in zip(searched, through)] if searched else list(through)
            passed = [a + b for a, b in zip(passed, around)] if passed else around
        states.append(self._shuffled(searched.pop(0), passed.pop(0)))
        running.write()
        return nchw(torch.cat([states[index] for index in self.concat], dim=3))

    def _around(self, x: Tensor, stride: int) -> Tensor:
        """Returns the channels that bypass the operations."""
        if not x.shape[3]:
            return x.new_zeros(())
        return x if stride == 1 else nhwc(functional.max_pool2d(nchw(x), 2, 2, ceil_mode=True))

    @property
    def _portion(self) -> int:
        return self.nodes[0].edges[0].relaxation.portion

    def _weights(self, plan: Plan) -> tuple[Tensor, list[list[Tensor]]]:
        """The weights of candidates as the plan orders them, and of edges by state."""
        edges: list[list[Tensor]] = [[] for _ in plan.leaving]
        weights = [plan.constants]
        for node in self.nodes:
            architecture = node.inputs.architecture
            weighted = architecture.decisions[node.inputs.label].weighted
            of_edges = architecture.edge_weights(node.inputs.label) if weighted else plan.constants[1:].expand(len(node.edges))
            for state, (edge, weight) in enumerate(zip(node.edges, of_edges.unbind())):
                edges[state].append(weight)
                weights.append(weight * edge.relaxation.weights(edge.label, architecture.alpha(edge.label)))
        return torch.cat(weights), edges

    def _shuffled(self, searched: Tensor, passed: Tensor) -> Tensor:
        """As :meth:`.PartialChannels.around` does: (B, H, W, C)"""
        if self._portion == 1:
            return searched
        return torch.cat([searched, passed], dim=3).unflatten(3, (self._portion, -1)).transpose(3, 4).flatten(3)
