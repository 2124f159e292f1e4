"""The relaxed recurrent cell, computed fast: the same numbers from the same parameters.

The plain execution computes every edge and every activation by itself, at every time step. Here each node takes one product of all its
inputs with its matrix and one expression for all edges and activations, whose derivative is written out. With p the probabilities of an
edge's activations, q their sum, and ``none`` left out, since it adds nothing::

    sᵢ = Σⱼ [ q sⱼ + σ(cⱼ) ⊙ (Σ_f p_f f(hⱼ) − q sⱼ) ]

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nni_darts.recurrent import ACTIVATIONS
from nni_darts.search_spaces.recurrent import RecurrentCell, RecurrentChoiceNode
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastRecurrentCell', 'accelerate_recurrent']


def accelerate_recurrent(model: nn.Module, relaxation: Relaxation) -> None:
    """Replaces the recurrent cells of a supernet that can be computed fast, in place. Others stay as they are.

    A relaxation must mix candidates by weights (softmax and what differs from it only in its weights), and edges have no weights of
    their own.
    """
    plain = type(relaxation)
    if plain.mix is not Relaxation.mix or plain.around is not Relaxation.around or relaxation.weighted_edges:
        return
    found = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children() if _is_suited(child)]
    for parent, name, child in found:
        setattr(parent, name, FastRecurrentCell(child))


def _is_suited(cell: nn.Module) -> bool:
    return type(cell) is RecurrentCell and all(
        isinstance(node, RecurrentChoiceNode)
        and isinstance(node.inputs, SummedInputs)
        and all(isinstance(edge, MixedOperation) and tuple(edge.names) == ACTIVATIONS for edge in node.edges)
        for node in cell.nodes
    )


class FastRecurrentCell(RecurrentCell):
    """A relaxed recurrent cell. Takes over the modules of the plain one."""

    def __init__(self, cell: RecurrentCell) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)
        self._scratch = _Scratch()

    def forward(self, words: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As for :class:`RecurrentCell`."""
        # A frozen copy of a supernet has fixed nodes; scoring shares results among plain modules.
        self._weights = None
        if all(isinstance(node, RecurrentChoiceNode) for node in self.nodes) and self.nodes[0].inputs.architecture.masked is None:
            self._weights = [_edge_weights(node) for node in self.nodes]  # once for all time steps
        try:
            return super().forward(words, hidden, mask)
        finally:
            self._weights = None

    def step(self, first: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """As for :class:`RecurrentCell`."""
        if self._weights is None:
            return super().step(first, hidden, mask)
        gate, update = first.chunk(2, dim=-1)
        states = [self.norms[0](hidden + torch.sigmoid(gate) * (torch.tanh(update) - hidden))]
        for node, norm, (kept, weights) in zip(self.nodes, self.norms[1:], self._weights):
            inputs = [states[index] for index in kept]
            if hidden.device.type == 'cpu':
                states.append(norm(_NodeState.apply(self._scratch, node.weight, mask, weights, *inputs)))
            else:  # memory is cheap to come by, and a device should not wait for numbers of the host
                states.append(norm(_node_state(node.weight, mask, weights, inputs)))
        return torch.stack([states[index] for index in self.concat]).mean(dim=0)


def _edge_weights(node: RecurrentChoiceNode) -> tuple[list[int], Tensor]:
    """The inputs of a node that are left, and the weights of their activations without ``none``: (inputs, activations)"""
    kept = [index for index, edge in enumerate(node.edges) if not edge.architecture.is_cut(edge.label)]
    rows = []
    for edge in (node.edges[index] for index in kept):
        alpha = edge.architecture.alpha(edge.label)
        decided = edge.architecture.fixed.get(edge.label)
        if decided is None:
            rows.append(edge.relaxation.weights(edge.label, alpha))
        else:
            rows.append(nn.functional.one_hot(torch.tensor(decided, device=alpha.device), len(ACTIVATIONS)).to(alpha))
    return kept, torch.stack(rows)[:, 1:]


def _node_state(matrix: Tensor, mask: Tensor | None, weights: Tensor, states: Sequence[Tensor]) -> Tensor:
    """The expression above as autograd differentiates it. Arguments as for :class:`_NodeState`."""
    stacked = torch.stack(tuple(states))
    gate, update = ((stacked if mask is None else stacked * mask) @ matrix).chunk(2, dim=-1)
    tanh, relu, sigmoid, identity = weights[..., None, None].unbind(dim=1)
    mixed = tanh * torch.tanh(update) + relu * torch.relu(update) + sigmoid * torch.sigmoid(update) + identity * update
    stacked = (tanh + relu + sigmoid + identity) * stacked
    return (stacked + torch.sigmoid(gate) * (mixed - stacked)).sum(dim=0)


class _Scratch:
    """Memory for what is computed on the way, the same for all nodes and time steps: to get fresh memory takes longer than to compute."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def __call__(self, count: int, like: Tensor) -> Tensor:
        """(count, *like.shape) with anything in it; valid until the next call."""
        memory = self._memory
        if len(memory) < count or memory.shape[1:] != like.shape or memory.dtype != like.dtype:
            self._memory = memory = like.new_empty(count, *like.shape)
        return memory[:count]


def _products(
    scratch: _Scratch, spare: int, matrix: Tensor, mask: Tensor | None, states: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]:
    """What the matrix reads and what its two halves make of it, each (inputs, B, hidden) and contiguous; spare memory (B, hidden)."""
    inputs = len(states)
    memory = scratch(3 * inputs + spare, states[0])
    read, gates, updates, rest = memory.split([inputs, inputs, inputs, spare])
    for state, place in zip(states, read):
        if mask is None:
            place.copy_(state)
        else:
            torch.mul(state, mask, out=place)
    for half, products in zip(matrix.chunk(2, dim=1), (gates, updates)):
        torch.mm(read.flatten(0, 1), half, out=products.flatten(0, 1))
    return read, gates, updates, rest.unbind()


class _NodeState(torch.autograd.Function):
    """A node's state from its matrix (hidden, 2·hidden), the mask (B, hidden) or None, weights (inputs, activations), states (B, hidden).

    Only these are kept for the derivative, which computes the products again: that takes less time than to write them into fresh memory
    at every time step and to read them back. What is left of an edge is computed while its numbers are in the processor's cache.
    """

    @staticmethod
    def forward(context: Any, scratch: _Scratch, matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor) -> Tensor:
        context.scratch = scratch
        context.save_for_backward(matrix, mask, weights, *states)
        _, gates, updates, (mixed, other) = _products(scratch, 2, matrix, mask, states)
        total = torch.zeros_like(states[0])
        for state, gate, update, (tanh, relu, sigmoid, identity) in zip(states, gates, updates, weights.tolist()):
            whole = tanh + relu + sigmoid + identity
            torch.tanh(update, out=mixed).mul_(tanh)
            mixed.add_(torch.sigmoid(update, out=other), alpha=sigmoid)
            mixed.add_(torch.clamp_min(update, 0, out=other), alpha=relu)
            mixed.add_(update, alpha=identity).add_(state, alpha=-whole)
            total.addcmul_(torch.sigmoid(gate, out=other), mixed).add_(state, alpha=whole)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        matrix, mask, weights, *states = context.saved_tensors
        _, needs_matrix, _, needs_weights, *_ = context.needs_input_grad
        of_matrix, of_weights, *of_states = _NodeStateBackward.apply(
            context.scratch, needs_matrix, needs_weights, *gradients, matrix, mask, weights, *states
        )
        return None, of_matrix, None, of_weights, *of_states


class _NodeStateBackward(torch.autograd.Function):
    """The derivative of :class:`_NodeState`. Its own derivative, which only exact Hessians need, is autograd's."""

    @staticmethod
    def forward(
        context: Any,
        scratch: _Scratch,
        needs_matrix: bool,
        needs_weights: bool,
        gradient: Tensor,
        matrix: Tensor,
        mask: Tensor | None,
        weights: Tensor,
        *states: Tensor,
    ) -> tuple[Tensor | None, ...]:
        context.save_for_backward(gradient, matrix, mask, weights, *states)
        read, gates, updates, (gate, mixed, tanhs, sigmoids, other) = _products(scratch, 5, matrix, mask, states)
        of_states = [torch.empty_like(state) for state in states]
        of_weights = torch.empty_like(weights) if needs_weights else None
        edges = zip(states, gates, updates, weights.tolist(), of_states)
        for index, (state, of_gate, update, (tanh, relu, sigmoid, identity), of_state) in enumerate(edges):
            whole = tanh + relu + sigmoid + identity
            torch.sigmoid(of_gate, out=gate)
            torch.tanh(update, out=tanhs)
            torch.sigmoid(update, out=sigmoids)
            through = torch.mul(gate, gradient, out=of_gate)  # what reaches the activations
            torch.sub(gradient, through, out=of_state)  # what reaches the state past them
            if of_weights is not None:
                relus = torch.clamp_min(update, 0, out=other)
                reached = [torch.sum(torch.mul(through, values, out=mixed)) for values in (tanhs, relus, sigmoids, update)]
                of_weights[index] = torch.stack(reached) + torch.sum(torch.mul(of_state, state, out=mixed))
            of_state.mul_(whole)
            torch.mul(tanhs, tanh, out=mixed).add_(sigmoids, alpha=sigmoid).add_(torch.clamp_min(update, 0, out=other), alpha=relu)
            mixed.add_(update, alpha=identity).add_(state, alpha=-whole).mul_(through)
            slope = tanhs.square_().mul_(-tanh).add_(tanh + identity).add_(other.sign_(), alpha=relu)
            slope.add_(sigmoids, alpha=sigmoid).addcmul_(sigmoids, sigmoids, value=-sigmoid)
            torch.mul(slope, through, out=update)
            torch.mul(mixed, gate.neg_().add_(1), out=of_gate)
        flat, halves, of_matrix = read.flatten(0, 1), (gates.flatten(0, 1), updates.flatten(0, 1)), None
        if needs_matrix:
            of_matrix = torch.empty_like(matrix)
            for half, place in zip(halves, of_matrix.chunk(2, dim=1)):
                torch.mm(flat.T, half, out=place)
        first, second = (half.T for half in matrix.chunk(2, dim=1))
        of_read = torch.mm(halves[0], first, out=flat).addmm_(halves[1], second).view_as(read)
        for of_state, part in zip(of_states, of_read):
            if mask is None:
                of_state.add_(part)
            else:
                of_state.addcmul_(part, mask)
        return of_matrix, of_weights, *of_states

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, matrix, mask, weights, *states = context.saved_tensors
        with torch.enable_grad():
            gradient, matrix, weights, *states = (tensor.detach().requires_grad_() for tensor in (gradient, matrix, weights, *states))
            inputs = [matrix, weights, *states]
            first = torch.autograd.grad(_node_state(matrix, mask, weights, states), inputs, gradient, create_graph=True)
            values, others = zip(*((value, other) for value, other in zip(first, gradients) if other is not None))
            second = torch.autograd.grad(values, [gradient, *inputs], others, allow_unused=True)
        of_gradient, of_matrix, of_weights, *of_states = second
        return None, None, None, of_gradient, of_matrix, None, of_weights, *of_states
