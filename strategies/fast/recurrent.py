"""The relaxed recurrent cell, computed fast: the same numbers from the same parameters.

The plain execution computes every edge and every activation by itself, at every time step. Here each node takes one product of all its
inputs with its matrix and one expression for all edges and activations, whose derivative is written out. With p the probabilities of an
edge's activations, q their sum, and ``none`` left out, since it adds nothing::

    sᵢ = Σⱼ [ q sⱼ + σ(cⱼ) ⊙ (Σ_f p_f f(hⱼ) − q sⱼ) ]

Modules, parameters, buffers and their names stay as they are: checkpoints fit both ways.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nni_darts.genotypes.recurrent import ACTIVATIONS
from nni_darts.search_spaces.recurrent import RecurrentCell, RecurrentChoiceNode
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.fast.executors import ExecutorChoice
from nni_darts.strategies.fast.kernels import kernels, pointer
from nni_darts.strategies.supernet import MixedOperation, SummedInputs

__all__ = ['FastRecurrentCell', 'is_suited']


def is_suited(cell: nn.Module) -> bool:
    """Whether it is a relaxed cell that :class:`FastRecurrentCell` can take over."""
    return type(cell) is RecurrentCell and all(
        isinstance(node, RecurrentChoiceNode)
        and isinstance(node.inputs, SummedInputs)
        and all(isinstance(edge, MixedOperation) and tuple(edge.names) == ACTIVATIONS for edge in node.edges)
        for node in cell.nodes
    )


class FastRecurrentCell(RecurrentCell):
    """A relaxed recurrent cell. Takes over the modules of the plain one."""

    executors = ('compiled', 'piecewise', 'joined', 'plain')

    def __init__(self, cell: RecurrentCell, choice: ExecutorChoice) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(cell.__dict__)
        self.choice = choice
        self._memories = {name: _Memory(compiled=name == 'compiled') for name in ('compiled', 'piecewise')}
        self._memory: _Memory | None = None
        self._weights: list[tuple[list[int], Tensor]] | None = None

    def forward(self, words: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As for :class:`RecurrentCell`."""
        # A frozen copy of a supernet has fixed nodes; scoring shares results among plain modules.
        if not all(isinstance(node, RecurrentChoiceNode) for node in self.nodes) or self._architecture.masked is not None:
            return super().forward(words, hidden, mask)
        return self.execute(self.choice(self, words, hidden, mask), words, hidden, mask)

    def execute(self, name: str, words: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As :meth:`.Executable.execute`: nodes in kernels, in torch's operations edge by edge, or as autograd differentiates them."""
        if name == 'plain':
            return super().forward(words, hidden, mask)
        try:
            self._weights = [_edge_weights(node) for node in self.nodes]  # once for all time steps
            self._memory = self._memories.get(name)
            return super().forward(words, hidden, mask)
        finally:
            self._weights = self._memory = None

    def sample(self, words: Tensor, hidden: Tensor, mask: Tensor | None, *, portion: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """As :meth:`.Executable.sample`: the first time steps, whatever the portion, because each takes as long as the one before."""
        edges = sum(len(node.edges) for node in self.nodes)
        return words[: min(MOST_SAMPLED_STEPS, max(1, SAMPLED_NUMBERS // (edges * hidden.numel())))], hidden, mask

    def structure(self) -> str:
        """As :meth:`.Executable.structure`."""
        return f'{self} {self._architecture.fixed} {self._architecture.dropped}'

    def alphas(self) -> Sequence[Tensor]:
        """As :meth:`.Executable.alphas`."""
        return self._architecture.arch_parameters()

    @property
    def _architecture(self) -> Architecture:
        return self.nodes[0].inputs.architecture

    def step(self, first: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """As for :class:`RecurrentCell`."""
        if self._weights is None:
            return super().step(first, hidden, mask)
        gate, update = first.chunk(2, dim=-1)
        states = [self.norm(hidden + torch.sigmoid(gate) * (torch.tanh(update) - hidden))]
        for node, (kept, weights) in zip(self.nodes, self._weights):
            inputs = [states[index] for index in kept]
            if self._memory is not None:
                states.append(self.norm(_NodeState.apply(self._memory, node.weight, mask, weights, *inputs)))
            else:
                states.append(self.norm(_node_state(node.weight, mask, weights, inputs)))
        return torch.stack([states[index] for index in self.concat]).mean(dim=0)


def _edge_weights(node: RecurrentChoiceNode) -> tuple[list[int], Tensor]:
    """The inputs of a node that are left, and the weights of their activations without ``none``: (inputs, activations)"""
    kept = [index for index, edge in enumerate(node.edges) if not edge.architecture.is_cut(edge.label)]
    rows = []
    for edge in (node.edges[index] for index in kept):
        decided = edge.architecture.operation(edge.label)
        if decided is None:
            rows.append(edge.relaxation.weights(edge.label, edge.architecture.alpha(edge.label)))
        else:
            rows.append(nn.functional.one_hot(torch.tensor(decided, device=node.weight.device), len(ACTIVATIONS)).to(node.weight))
    return kept, torch.stack(rows)[:, 1:]


def _node_state(matrix: Tensor, mask: Tensor | None, weights: Tensor, states: Sequence[Tensor]) -> Tensor:
    """The expression above as autograd differentiates it. Arguments as for :class:`_NodeState`."""
    stacked = torch.stack(tuple(states))
    gate, update = ((stacked if mask is None else stacked * mask) @ matrix).chunk(2, dim=-1)
    tanh, relu, sigmoid, identity = weights[..., None, None].unbind(dim=1)
    mixed = tanh * torch.tanh(update) + relu * torch.relu(update) + sigmoid * torch.sigmoid(update) + identity * update
    stacked = (tanh + relu + sigmoid + identity) * stacked
    return (stacked + torch.sigmoid(gate) * (mixed - stacked)).sum(dim=0)


SAMPLED_NUMBERS = 2**20
"""Numbers of a state times edges and time steps, on which executors are timed; at least one step, and at most the following."""
MOST_SAMPLED_STEPS = 4


class _Memory:
    """Pieces of memory that go from one time step, and one pass, to the next: to get fresh ones takes as long as to compute with them.

    Args:
        compiled: whether nodes that use it are computed by kernels, where there are any.
    """

    def __init__(self, *, compiled: bool = True) -> None:
        self.compiled = compiled
        self._free: dict[int, list[Tensor]] = {}
        self._kind: tuple[Any, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Memory:
        return _Memory(compiled=self.compiled)

    def take(self, count: int, like: Tensor) -> Tensor:
        """(count, *like.shape) with anything in it."""
        kind = (like.shape, like.dtype)
        if kind != self._kind:
            self._free, self._kind = {}, kind
        free = self._free.get(count)
        return free.pop() if free else like.new_empty(count, *like.shape)

    def give(self, piece: Tensor) -> None:
        """Takes a piece back that nobody reads any more."""
        if (piece.shape[1:], piece.dtype) == self._kind:
            self._free.setdefault(len(piece), []).append(piece)


def _read(states: Sequence[Tensor], mask: Tensor | None, out: Tensor) -> Tensor:
    """Copies the inputs of the matrix product into ``out``: (inputs, B, hidden)"""
    for state, place in zip(states, out):
        if mask is None:
            place.copy_(state)
        else:
            torch.mul(state, mask, out=place)
    return out


def _multiply(read: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """Gates and updates one after the other, each contiguous: (2·inputs, B, hidden)"""
    for half, products in zip(matrix.chunk(2, dim=1), out.chunk(2)):
        torch.mm(read.flatten(0, 1), half, out=products.flatten(0, 1))
    return out


def _activate(memory: _Memory, states: Sequence[Tensor], products: Tensor, weights: Tensor) -> Tensor:
    """A node's state from the products of its inputs; their gates are squashed then. Edge by edge, while an edge is in the cache."""
    like = states[0]
    gates, updates = products.chunk(2)
    functions = kernels(like) if memory.compiled else None
    if functions is not None:
        total, weights = torch.empty_like(like), weights.contiguous()
        functions.activate(*_edges(states), pointer(gates), pointer(updates), pointer(weights), pointer(total), torch.get_num_threads())
        return total
    gates.sigmoid_()
    spare = memory.take(4, like)
    total = torch.zeros_like(like)
    for state, gate, update, edge in zip(states, gates, updates, weights.tolist()):
        shares = _shares(edge)
        mean = _mean(update, shares, *spare)
        total.add_(torch.lerp(state, mean, gate, out=spare[0]), alpha=shares[0])
    memory.give(spare)
    return total


def _activate_backward(
    memory: _Memory, gradient: Tensor, states: Sequence[Tensor], products: Tensor, weights: Tensor, needs_weights: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Its derivative: what reaches the states past the gates, and the weights. Products are replaced by their gradients."""
    inputs, like = len(states), states[0]
    gates, updates = products.chunk(2)
    of_states = [torch.empty_like(like) for _ in states]
    functions = kernels(like) if memory.compiled else None
    if functions is not None:
        sums, weights = torch.zeros(inputs, 4, dtype=torch.float64), weights.contiguous()
        edges, count, read = _edges(states)
        functions.activate_backward(
            edges,
            count,
            pointer(gradient),
            read,
            pointer(gates),
            pointer(updates),
            pointer(weights),
            _pointers(of_states),
            pointer(sums),
            torch.get_num_threads(),
        )
        return of_states, sums.to(weights.dtype) if needs_weights else None
    spare = memory.take(6, like)
    *parts, mean, scaled, through = spare
    of_weights = torch.empty_like(weights) if needs_weights else None
    for index, (state, gate, update, edge, of_state) in enumerate(zip(states, gates, updates, weights.tolist(), of_states)):
        shares = whole, slope, of_sigmoid, of_leaky = _shares(edge)
        tanh, sigmoid, leaky = parts
        _mean(update, shares, *parts, mean)
        if of_weights is not None:
            torch.mul(gradient, gate, out=through)
            torch.sub(gradient, through, out=of_state)
            past = _dot(of_state, state)
            relu = torch.clamp_min(update, 0, out=scaled)
            of_weights[index] = torch.stack([past + _dot(through, values) for values in (tanh, relu, sigmoid, update)])
        torch.mul(gradient, whole, out=scaled)
        torch.mul(scaled, gate, out=through)  # what reaches the activations
        torch.sub(scaled, through, out=of_state)  # what reaches the state past them
        # The gate is overwritten by its gradient, and so is the update.
        torch.ops.aten.sigmoid_backward(mean.sub_(state).mul_(scaled), gate, grad_input=gate)
        torch.ops.aten.tanh_backward(through, tanh, grad_input=tanh)
        torch.ops.aten.sigmoid_backward(through, sigmoid, grad_input=sigmoid)
        torch.ops.aten.leaky_relu_backward(through, update, slope, False, grad_input=leaky)
        torch.lerp(tanh, sigmoid, of_sigmoid, out=update).lerp_(leaky, of_leaky)
    memory.give(spare)
    return of_states, of_weights


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _edges(states: Sequence[Tensor]) -> tuple[Any, Any, Any]:
    """How many edges, how many numbers in a state, and where the states are, as the kernels take them."""
    return ctypes.c_long(len(states)), ctypes.c_long(states[0].numel()), _pointers(states)


def _shares(weights: Sequence[float]) -> tuple[float, float, float, float]:
    """The four weights of an edge as a mean of means: their sum q; the slope of a leaky ReLU that is relu and identity together; the
    share of sigmoid in sigmoid and tanh; the share of the leaky ReLU in all."""
    tanh, relu, sigmoid, identity = weights
    whole = tanh + relu + sigmoid + identity

    def share(part: float, of: float) -> float:
        return part / of if of else 0.0

    return whole, share(identity, relu + identity), share(sigmoid, tanh + sigmoid), share(relu + identity, whole)


def _mean(update: Tensor, shares: Sequence[float], tanh: Tensor, sigmoid: Tensor, leaky: Tensor, out: Tensor) -> Tensor:
    """Σ_f (p_f / q) f(update), and its parts in the memory given for them."""
    _, slope, of_sigmoid, of_leaky = shares
    torch.tanh(update, out=tanh)
    torch.sigmoid(update, out=sigmoid)
    torch.ops.aten.leaky_relu(update, slope, out=leaky)
    torch.lerp(tanh, sigmoid, of_sigmoid, out=out)
    return out.lerp_(leaky, of_leaky)


class _NodeState(torch.autograd.Function):
    """A node's state from its matrix (hidden, 2·hidden), the mask (B, hidden) or None, weights (inputs, activations), states (B, hidden).

    With the mean m of its activations, weighted by p / q, an edge adds q (s + c (m − s)). The products wait for the derivative in memory
    that is used over and over; a second derivative of the same pass computes them again.
    """

    @staticmethod
    def forward(context: Any, memory: _Memory, matrix: Tensor, mask: Tensor | None, weights: Tensor, *states: Tensor) -> Tensor:
        context.save_for_backward(matrix, mask, weights, *states)
        inputs, like = len(states), states[0]
        states = [state.contiguous() for state in states]
        space = memory.take(inputs, like)
        products = _multiply(_read(states, mask, space), matrix, memory.take(2 * inputs, like))
        memory.give(space)
        total = _activate(memory, states, products, weights)
        context.memory, context.products = memory, products
        if not any(context.needs_input_grad):
            memory.give(products)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        matrix, mask, weights, *states = context.saved_tensors
        _, needs_matrix, _, needs_weights, *_ = context.needs_input_grad
        products, context.products = context.products, None  # what follows overwrites them
        of_matrix, of_weights, *of_states = _NodeStateBackward.apply(
            context.memory, products, needs_matrix, needs_weights, *gradients, matrix, mask, weights, *states
        )
        return None, of_matrix, None, of_weights, *of_states


class _NodeStateBackward(torch.autograd.Function):
    """The derivative of :class:`_NodeState`. Its own derivative, which only exact Hessians need, is autograd's."""

    @staticmethod
    def forward(
        context: Any,
        memory: _Memory,
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
        gradient, states = gradient.contiguous(), [state.contiguous() for state in states]
        space = memory.take(inputs, like)
        read = _read(states, mask, space)
        if products is None:
            products = _multiply(read, matrix, memory.take(2 * inputs, like))
            products[:inputs].sigmoid_()
        of_states, of_weights = _activate_backward(memory, gradient, states, products, weights, needs_weights)
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
        memory.give(space)
        memory.give(products)
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
        return None, None, None, None, of_gradient, of_matrix, None, of_weights, *of_states


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of products of elements."""
    return torch.dot(a.flatten(), b.flatten())
