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
            states.append(norm(_NodeState.apply(node.weight, mask, weights, *(states[index] for index in kept))))
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


def _products(matrix: Tensor, mask: Tensor | None, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What the matrix reads and what it makes of it: (inputs, B, hidden) and (inputs, B, 2·hidden)"""
    read = states[0].new_empty(len(states), *states[0].shape)
    for state, place in zip(states, read):
        if mask is None:
            place.copy_(state)
        else:
            torch.mul(state, mask, out=place)
    return read, (read.flatten(0, 1) @ matrix).view(*read.shape[:2], -1)


class _NodeState(torch.autograd.Function):
    """A node's state from its matrix (hidden, 2·hidden), the mask (B, hidden) or None, weights (inputs, activations), states (B, hidden).

    Only these are kept for the derivative, which computes the product again: that takes less time than to write it into fresh memory at
    every time step and to read it back. What is left of an edge is computed while its numbers are in the processor's cache.
    """

    @staticmethod
    def forward(context: Any, matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor) -> Tensor:
        context.save_for_backward(matrix, mask, weights, *states)
        _, products = _products(matrix, mask, states)
        hidden = matrix.shape[0]
        total, mixed, other = (torch.zeros_like(states[0]) for _ in range(3))
        for state, both, (tanh, relu, sigmoid, identity) in zip(states, products, weights.tolist()):
            gate, update = both[:, :hidden], both[:, hidden:]
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
        of_matrix, of_weights, *of_states = _NodeStateBackward.apply(context.needs_input_grad, *gradients, matrix, mask, weights, *states)
        return of_matrix, None, of_weights, *of_states


class _NodeStateBackward(torch.autograd.Function):
    """The derivative of :class:`_NodeState`. Itself differentiable once more, by autograd."""

    @staticmethod
    def forward(
        context: Any, needed: Sequence[bool], gradient: Tensor, matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor
    ) -> tuple[Tensor | None, ...]:
        context.save_for_backward(gradient, matrix, mask, weights, *states)
        needs_matrix, _, needs_weights, *_ = needed
        hidden = matrix.shape[0]
        read, products = _products(matrix, mask, states)
        of_states = torch.empty_like(read)
        of_weights = torch.empty_like(weights) if needs_weights else None
        gate, mixed, tanhs, sigmoids, relus = (torch.empty_like(gradient) for _ in range(5))
        for index, (state, both, (tanh, relu, sigmoid, identity), of_state) in enumerate(
            zip(states, products, weights.tolist(), of_states)
        ):
            whole = tanh + relu + sigmoid + identity
            of_gate, update = both[:, :hidden], both[:, hidden:]
            torch.sigmoid(of_gate, out=gate)
            torch.tanh(update, out=tanhs)
            torch.sigmoid(update, out=sigmoids)
            torch.clamp_min(update, 0, out=relus)
            through = torch.mul(gate, gradient, out=of_gate)  # what reaches the activations
            torch.sub(gradient, through, out=of_state)  # what reaches the state past them
            if of_weights is not None:
                reached = [torch.sum(torch.mul(through, values, out=mixed)) for values in (tanhs, relus, sigmoids, update)]
                of_weights[index] = torch.stack(reached) + torch.sum(torch.mul(of_state, state, out=mixed))
            of_state.mul_(whole)
            torch.mul(tanhs, tanh, out=mixed).add_(sigmoids, alpha=sigmoid).add_(relus, alpha=relu)
            mixed.add_(update, alpha=identity).add_(state, alpha=-whole).mul_(through)
            slope = tanhs.square_().mul_(-tanh).add_(tanh + identity).add_(relus.sign_(), alpha=relu)
            slope.addcmul_(sigmoids, sigmoids.neg().add_(1), value=sigmoid)
            torch.mul(slope, through, out=update)
            torch.mul(mixed, gate.neg_().add_(1), out=of_gate)
        flat = products.flatten(0, 1)
        of_matrix = read.flatten(0, 1).T @ flat if needs_matrix else None
        of_read = torch.mm(flat, matrix.T, out=read.view(-1, hidden)).view_as(read)
        if mask is None:
            of_states.add_(of_read)
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
            reached = [(value, other) for value, other in zip(first, gradients) if other is not None]
            values, others = zip(*reached)
            second = torch.autograd.grad(values, [gradient, *inputs], others, allow_unused=True)
        of_gradient, of_matrix, of_weights, *of_states = second
        return None, of_gradient, of_matrix, None, of_weights, *of_states
