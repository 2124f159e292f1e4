"""The relaxed recurrent cell, computed fast: the same numbers from the same parameters.

The plain execution computes every edge and every activation separately, at every time step. Here, each node computes one product of all
its inputs with its matrix, and one expression for all edges and activations with an explicit derivative. ``none`` is left out because it
adds nothing. Let p be the probabilities of an edge's activations, and q their sum::

    sᵢ = Σⱼ [ q sⱼ + σ(cⱼ) ⊙ (Σ_f p_f f(hⱼ) − q sⱼ) ]

Modules, parameters, buffers and their names are those of the plain cell, so checkpoints fit both ways.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nni_darts.genotypes.recurrent import ACTIVATIONS
from nni_darts.search_spaces.recurrent import RecurrentCell, RecurrentChoiceNode
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.fast.executors import CellInputs, ExecutedCell, Executor, ExecutorChoice, by_name
from nni_darts.strategies.fast.kernels import pointer, pointers, required_kernels
from nni_darts.strategies.fast.plan import RelaxedNode, relaxed_nodes
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastRecurrentCell', 'is_suited']


def is_suited(cell: nn.Module) -> TypeGuard[RecurrentCell]:
    """Returns whether a module is a relaxed cell that :class:`FastRecurrentCell` can replace."""
    return type(cell) is RecurrentCell and all(
        isinstance(node, RecurrentChoiceNode)
        and isinstance(node.inputs, SummedInputs)
        and all(isinstance(edge, MixedOperation) and tuple(edge.names) == ACTIVATIONS for edge in node.edges)
        for node in cell.nodes
    )


class RecurrentPlan(NamedTuple):
    """The computations of a cell, valid until another edge is decided.

    Attributes:
        inputs: node → indices of the states that it reads.
    """

    inputs: tuple[tuple[int, ...], ...]


class _Plain(Executor):
    """Computes each edge and activation by its own module."""

    name = 'plain'

    def __call__(self, cell: FastRecurrentCell, plan: RecurrentPlan, *inputs: Any) -> tuple[Tensor, Tensor]:
        return RecurrentCell.forward(cell, *inputs)


class _Joined(Executor):
    """Computes a node by one expression for all edges and activations, which autograd differentiates."""

    name = 'joined'

    def __call__(self, cell: FastRecurrentCell, plan: RecurrentPlan, *inputs: Any) -> tuple[Tensor, Tensor]:
        return cell.compute(plan, _node_state, *inputs)


class _Compiled(Executor):
    """Computes the activations of a node by kernels in C++, with explicit derivatives."""

    name = 'compiled'

    def __call__(self, cell: FastRecurrentCell, plan: RecurrentPlan, *inputs: Any) -> tuple[Tensor, Tensor]:
        return cell.compute(plan, functools.partial(_NodeState.apply, cell.workspace), *inputs)


class FastRecurrentCell(ExecutedCell, RecurrentCell):
    """A relaxed recurrent cell that several executors can compute, with the modules of the plain cell."""

    executors = by_name(_Compiled(), _Joined(), _Plain())

    def __init__(self, cell: RecurrentCell, choice: ExecutorChoice) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)
        self.choice = choice
        self.workspace = Workspace()
        self._pass: _Pass | None = None

    def forward(self, words: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Computes all time steps, as :class:`RecurrentCell` does."""
        # A frozen copy of a supernet has fixed nodes; scoring shares results among plain modules.
        if not all(isinstance(node, RecurrentChoiceNode) for node in self.nodes) or self._architecture.view.mask is not None:
            return super().forward(words, hidden, mask)
        return self.execute(self.choice(self, words, hidden, mask), words, hidden, mask)

    def plan(self, like: Tensor) -> RecurrentPlan:
        """Returns the plan, as :meth:`.ExecutedCell.plan` does."""
        cut = self._architecture.view.is_cut
        nodes = relaxed_nodes(self.nodes)
        return RecurrentPlan(tuple(tuple(index for index, edge in enumerate(node.edges) if not cut(edge.label)) for node in nodes))

    def compute(self, plan: RecurrentPlan, node_state: Callable[..., Tensor], *inputs: Any) -> tuple[Tensor, Tensor]:
        """Computes all time steps.

        Args:
            plan: the plan of the cell.
            node_state: (matrix, mask, weights of the activations, *input states) → state of a node.
            inputs: words, hidden state and mask, as for :meth:`forward`.
        """
        try:
            # The weights are the same at all time steps.
            weights = [self._weights(node, kept) for node, kept in zip(relaxed_nodes(self.nodes), plan.inputs)]
            self._pass = _Pass(node_state, list(zip(plan.inputs, weights)))
            return super().forward(*inputs)
        finally:
            self._pass = None

    def sample(self, *inputs: Any, portion: int) -> CellInputs:
        """Returns the first time steps, whatever the portion, because all time steps take equally long."""
        words, hidden, mask = inputs
        edges = sum(len(node.edges) for node in relaxed_nodes(self.nodes))
        return words[: min(MOST_SAMPLED_STEPS, max(1, SAMPLED_NUMBERS // (edges * hidden.numel())))], hidden, mask

    def structure(self) -> str:
        """Returns a text that is equal for cells with the same computations."""
        return f'{self} {self._architecture.state.fixed} {self._architecture.state.dropped}'

    def alphas(self) -> Sequence[Tensor]:
        """Returns all α of the supernet."""
        return self._architecture.arch_parameters()

    @property
    def _architecture(self) -> Architecture:
        return relaxed_nodes(self.nodes)[0].inputs.architecture

    def _weights(self, node: RelaxedNode, inputs: Sequence[int]) -> Tensor:
        """Returns the weights of the activations, without ``none``, on the edges from these inputs, of shape (inputs, activations)."""
        rows = []
        for edge in (node.edges[index] for index in inputs):
            decided = edge.architecture.view.operation(edge.label)
            if decided is None:
                rows.append(edge.relaxation.used_weights(edge.label, edge.architecture.alpha(edge.label), id(self)))
            else:
                rows.append(nn.functional.one_hot(torch.tensor(decided, device=self.weight.device), len(ACTIVATIONS)).to(self.weight))
        return torch.stack(rows)[:, 1:]

    def step(self, first: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Computes one time step, as :class:`RecurrentCell` does."""
        if self._pass is None:
            return super().step(first, hidden, mask)
        gate, update = first.chunk(2, dim=-1)
        states = [self.norm(hidden + torch.sigmoid(gate) * (torch.tanh(update) - hidden))]
        for node, (inputs, weights) in zip(self.nodes, self._pass.nodes):
            states.append(self.norm(self._pass.node_state(node.weight, mask, weights, *(states[index] for index in inputs))))
        return torch.stack([states[index] for index in self.concat]).mean(dim=0)


class _Pass(NamedTuple):
    """The function that computes nodes in one pass, with the inputs and weights of each node."""

    node_state: Callable[..., Tensor]
    nodes: list[tuple[tuple[int, ...], Tensor]]


def _node_state(matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor) -> Tensor:
    """Computes a node's state by the equation above, for autograd to differentiate. Arguments as for :class:`_NodeState`."""
    stacked = torch.stack(states)
    gate, update = ((stacked if mask is None else stacked * mask) @ matrix).chunk(2, dim=-1)
    tanh, relu, sigmoid, identity = weights[..., None, None].unbind(dim=1)
    mixed = tanh * torch.tanh(update) + relu * torch.relu(update) + sigmoid * torch.sigmoid(update) + identity * update
    stacked = (tanh + relu + sigmoid + identity) * stacked
    return (stacked + torch.sigmoid(gate) * (mixed - stacked)).sum(dim=0)


SAMPLED_NUMBERS = 2**20
"""Numbers in a state, times edges and time steps, on which executors are timed; at least one step, and at most the number below."""
MOST_SAMPLED_STEPS = 4


class Workspace:
    """Memory that time steps and passes reuse, because allocating it would take as long as computing with it."""

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = {}
        self._kind: tuple[torch.Size, torch.dtype] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspace:
        return Workspace()

    def take(self, count: int, like: Tensor) -> Tensor:
        """Returns uninitialised memory of shape (count, *like.shape)."""
        kind = (like.shape, like.dtype)
        if kind != self._kind:
            self._free, self._kind = {}, kind
        free = self._free.get(count)
        return free.pop() if free else like.new_empty(count, *like.shape)

    def release(self, piece: Tensor) -> None:
        """Takes back memory that is no longer read."""
        if (piece.shape[1:], piece.dtype) == self._kind:
            self._free.setdefault(len(piece), []).append(piece)


def _read(states: Sequence[Tensor], mask: Tensor | None, out: Tensor) -> Tensor:
    """Copies the inputs of the matrix product into ``out``, of shape (inputs, B, hidden)."""
    for state, place in zip(states, out):
        if mask is None:
            place.copy_(state)
        else:
            torch.mul(state, mask, out=place)
    return out


def _multiply(read: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """Computes the gates and then the updates, each contiguous, as one tensor of shape (2·inputs, B, hidden)."""
    for half, products in zip(matrix.chunk(2, dim=1), out.chunk(2)):
        torch.mm(read.flatten(0, 1), half, out=products.flatten(0, 1))
    return out


def _activate(states: Sequence[Tensor], products: Tensor, weights: Tensor) -> Tensor:
    """Computes a node's state from the products of its inputs; replaces the gates in them by their sigmoids."""
    gates, updates = products.chunk(2)
    total, weights = torch.empty_like(states[0]), weights.contiguous()
    required_kernels(total).activate(
        len(states), total.numel(), pointers(states), *map(pointer, (gates, updates, weights, total)), torch.get_num_threads()
    )
    return total


def _activate_backward(
    gradient: Tensor, states: Sequence[Tensor], products: Tensor, weights: Tensor, needs_weights: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Returns the gradients of the states past the gates, and of the weights; replaces the products by their gradients."""
    gates, updates = products.chunk(2)
    of_states = [torch.empty_like(state) for state in states]
    sums, weights = torch.zeros(len(states), 4, dtype=torch.float64), weights.contiguous()
    required_kernels(gradient).activate_backward(
        len(states),
        gradient.numel(),
        pointer(gradient),
        pointers(states),
        *map(pointer, (gates, updates, weights)),
        pointers(of_states),
        pointer(sums),
        torch.get_num_threads(),
    )
    return of_states, sums.to(weights.dtype) if needs_weights else None


class _NodeState(torch.autograd.Function):
    """Computes a node's state from matrix (hidden, 2·hidden), mask (B, hidden) or None, weights (inputs, activations), states (B, hidden).

    With the mean m of its activations, weighted by p / q, an edge adds q (s + c (m − s)). The products are kept for the derivative in
    reused memory; a second derivative of the same pass recomputes them.
    """

    @staticmethod
    def forward(context: Any, workspace: Workspace, matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor) -> Tensor:
        context.save_for_backward(matrix, mask, weights, *states)
        inputs, like = len(states), states[0]
        held = [state.contiguous() for state in states]
        space = workspace.take(inputs, like)
        products = _multiply(_read(held, mask, space), matrix, workspace.take(2 * inputs, like))
        workspace.release(space)
        total = _activate(held, products, weights)
        context.workspace, context.products = workspace, products
        if not any(context.needs_input_grad):
            workspace.release(products)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        matrix, mask, weights, *states = context.saved_tensors
        _, needs_matrix, _, needs_weights, *_ = context.needs_input_grad
        products, context.products = context.products, None  # the following code overwrites them
        of_matrix, of_weights, *of_states = _NodeStateBackward.apply(
            context.workspace, products, needs_matrix, needs_weights, *gradients, matrix, mask, weights, *states
        )
        return None, of_matrix, None, of_weights, *of_states


class _NodeStateBackward(torch.autograd.Function):
    """Computes the derivative of :class:`_NodeState`; autograd computes the second derivative, which only exact Hessians need."""

    @staticmethod
    def forward(
        context: Any,
        workspace: Workspace,
        products: Tensor | None,
        needs_matrix: bool,
        needs_weights: bool,
        gradient: Tensor,
        matrix: Tensor,
        mask: Tensor | None,
        weights: Tensor,
        *states: Tensor,
    ) -> tuple[Tensor | None, ...]:
        context.save_for_backward(gradient, matrix, mask, weights, *states)
        inputs, like = len(states), states[0]
        gradient, held = gradient.contiguous(), [state.contiguous() for state in states]
        space = workspace.take(inputs, like)
        read = _read(held, mask, space)
        if products is None:
            products = _multiply(read, matrix, workspace.take(2 * inputs, like))
            products[:inputs].sigmoid_()
        of_states, of_weights = _activate_backward(gradient, held, products, weights, needs_weights)
        flat, halves, of_matrix = read.flatten(0, 1), [half.flatten(0, 1) for half in products.chunk(2)], None
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
        workspace.release(space)
        workspace.release(products)
        return of_matrix, of_weights, *of_states

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, matrix, mask, weights, *states = context.saved_tensors
        with torch.enable_grad():
            gradient, matrix, weights, *states = (tensor.detach().requires_grad_() for tensor in (gradient, matrix, weights, *states))
            inputs = [matrix, weights, *states]
            first = torch.autograd.grad(_node_state(matrix, mask, weights, *states), inputs, gradient, create_graph=True)
            values, of_values = zip(*((value, of_value) for value, of_value in zip(first, gradients) if of_value is not None))
            second = torch.autograd.grad(values, [gradient, *inputs], of_values, allow_unused=True)
        of_gradient, of_matrix, of_weights, *of_states = second
        return None, None, None, None, of_gradient, of_matrix, None, of_weights, *of_states
