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
        states = [self.norm(hidden + torch.sigmoid(gate) * (torch.tanh(update) - hidden))]
        for node, (kept, weights) in zip(self.nodes, self._weights):
            inputs = (states[index] for index in kept)
            states.append(self.norm(_NodeState.apply(self._scratch, node.weight, mask, weights, *inputs)))
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


_CACHED = 100_000
"""How many numbers of a state are computed at a time, so that what is computed of them stays in the processor's cache."""


def _groups(states: Sequence[Tensor]) -> list[slice]:
    """The edges, as many together as fit; on other devices than the CPU all."""
    together = max(1, _CACHED // states[0].numel()) if states[0].device.type == 'cpu' else len(states)
    return [slice(start, start + together) for start in range(0, len(states), together)]


class _Scratch:
    """Memory for what is computed on the way, the same for all nodes and time steps: to get fresh memory takes longer than to compute."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def __call__(self, count: int, like: Tensor) -> Tensor:
        """(count, *like.shape) with anything in it; valid until the next call."""
        memory = self._memory
        if len(memory) < count or memory.shape[1:] != like.shape or memory.dtype != like.dtype or memory.device != like.device:
            self._memory = memory = like.new_empty(count, *like.shape)
        return memory[:count]


def _products(
    scratch: _Scratch, spare: int, matrix: Tensor, mask: Tensor | None, states: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[tuple[slice, list[Tensor]]]]:
    """States, what the matrix reads of them, what its two halves make of that, each (inputs, B, hidden); groups with spare memory each."""
    inputs, groups = len(states), _groups(states)
    together = min(inputs, groups[0].stop)
    memory = scratch(4 * inputs + spare * together, states[0])
    stacked, read, gates, updates, rest = memory.split([inputs] * 4 + [spare * together])
    torch.stack(states, out=stacked)
    read = stacked if mask is None else torch.mul(stacked, mask, out=read)
    for half, products in zip(matrix.chunk(2, dim=1), (gates, updates)):
        torch.mm(read.flatten(0, 1), half, out=products.flatten(0, 1))
    pieces = rest.split(together)
    return stacked, read, gates, updates, [(group, [piece[: len(stacked[group])] for piece in pieces]) for group in groups]


class _NodeState(torch.autograd.Function):
    """A node's state from its matrix (hidden, 2·hidden), the mask (B, hidden) or None, weights (inputs, activations), states (B, hidden).

    Only these are kept for the derivative, which computes the products again: that takes less time than to write them into fresh memory
    at every time step and to read them back. What is left of an edge is computed while its numbers are in the processor's cache.
    """

    @staticmethod
    def forward(context: Any, scratch: _Scratch, matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor) -> Tensor:
        context.scratch = scratch
        context.save_for_backward(matrix, mask, weights, *states)
        stacked, _, gates, updates, groups = _products(scratch, 2, matrix, mask, states)
        total = torch.zeros_like(states[0])
        for group, (mixed, other) in groups:
            state, update = stacked[group], updates[group]
            tanh, relu, sigmoid, identity = weights[group, :, None, None].unbind(dim=1)
            whole = tanh + relu + sigmoid + identity
            torch.tanh(update, out=mixed).mul_(tanh)
            mixed.addcmul_(torch.sigmoid(update, out=other), sigmoid)
            mixed.addcmul_(torch.clamp_min(update, 0, out=other), relu)
            mixed.addcmul_(update, identity)
            torch.mul(state, whole, out=other)
            mixed.sub_(other)
            torch.addcmul(other, gates[group].sigmoid_(), mixed, out=mixed)
            total += mixed[0] if len(mixed) == 1 else torch.sum(mixed, dim=0)
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
        stacked, read, gates, updates, groups = _products(scratch, 5, matrix, mask, states)
        of_states = torch.empty_like(stacked)
        of_weights = torch.empty_like(weights) if needs_weights else None
        for group, (gate, mixed, tanhs, sigmoids, other) in groups:
            state, of_gate, update, of_state = stacked[group], gates[group], updates[group], of_states[group]
            tanh, relu, sigmoid, identity = weights[group, :, None, None].unbind(dim=1)
            whole = tanh + relu + sigmoid + identity
            torch.sigmoid(of_gate, out=gate)
            torch.tanh(update, out=tanhs)
            torch.sigmoid(update, out=sigmoids)
            through = torch.mul(gate, gradient, out=of_gate)  # what reaches the activations
            torch.sub(gradient, through, out=of_state)  # what reaches the state past them
            relus = torch.clamp_min(update, 0, out=other)
            if of_weights is not None:
                reached = [torch.mul(through, values, out=mixed).sum(dim=(1, 2)) for values in (tanhs, relus, sigmoids, update)]
                past = torch.mul(of_state, state, out=mixed).sum(dim=(1, 2))
                of_weights[group] = torch.stack(reached, dim=1) + past[:, None]
            of_state.mul_(whole)
            torch.mul(tanhs, tanh, out=mixed).addcmul_(sigmoids, sigmoid).addcmul_(relus, relu).addcmul_(update, identity)
            mixed.sub_(torch.mul(state, whole, out=update)).mul_(through)
            # The slope: tanh (1 − tanh²) + relu [h > 0] + sigmoid σ (1 − σ) + identity.
            slope = tanhs.square_().mul_(-tanh).add_(tanh + identity).addcmul_(relus.sign_(), relu)
            slope.addcmul_(torch.addcmul(sigmoids, sigmoids, sigmoids, value=-1, out=other), sigmoid)
            torch.mul(slope, through, out=update)
            torch.mul(mixed, gate.neg_().add_(1), out=of_gate)
        flat, halves, of_matrix = read.flatten(0, 1), (gates.flatten(0, 1), updates.flatten(0, 1)), None
        if needs_matrix:
            of_matrix = torch.empty_like(matrix)
            for half, place in zip(halves, of_matrix.chunk(2, dim=1)):
                torch.mm(flat.T, half, out=place)
        first, second = (half.T for half in matrix.chunk(2, dim=1))
        of_read = torch.mm(halves[0], first, out=flat).addmm_(halves[1], second).view_as(read)
        if mask is None:
            of_states += of_read
        else:
            of_states.addcmul_(of_read, mask)
        return of_matrix, of_weights, *of_states.unbind()

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
