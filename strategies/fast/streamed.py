"""A cell as one node of autograd's graph with a backward pass of its own, on the CPU: by compiled kernels, or piece by piece.

Time is spent there on moving numbers to and from memory. So

- a batch norm is part of the 1×1 convolution before it (:mod:`.folded`): neither its input nor its weighted output ever exists;
- backward keeps only the outputs of depthwise convolutions, and computes everything else again from them;
- what is computed from an image, or a piece of a batch, stays in the processor's caches from one operation to the next.

Images are (B, H, W, C) in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nni_darts.search_spaces.cell import Cell
from nni_darts.strategies.fast.compiled import CompiledMixture, can_compile
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.kernels import kernels
from nni_darts.strategies.fast.piecewise import Mixture, ModulePass, PiecewiseMixture, StateInputs
from nni_darts.strategies.fast.plan import Candidates, Plan, nchw, nhwc

__all__ = ['Stream', 'streamed', 'streamed_state']


class Stream(NamedTuple):
    """The way in which one pass through a cell is computed.

    Attributes:
        plan: the computations of the cell.
        running: takes new running statistics; None if it has taken those of this batch.
        compiled: whether compiled kernels compute the cell; else torch's operations do, piece by piece.
        keep: whether the pass keeps what backward needs; else backward computes it again.
    """

    plan: Plan
    running: RunningStatistics | None
    compiled: bool
    keep: bool

    def again(self) -> Stream:
        """Returns the way in which backward repeats the pass."""
        return self._replace(running=None, keep=True)


def streamed(cell: Cell, stream: Stream, weights: Tensor, older: Tensor, previous: Tensor) -> Tensor:
    """Computes a cell from its two preprocessed inputs and the weights of its candidates, in the plan's order."""
    return _CellFunction.apply(cell, stream, weights, older, previous, *stream.plan.parameters())


def _compute(stream: Stream, weights: Tensor, *tensors: Tensor) -> tuple[Tensor, list[_StatePass]]:
    """Returns the cell's output (B, H, W, C) and, if they are kept, the passes of all states."""
    plan = stream.plan
    states, parameters = [nhwc(tensors[0]), nhwc(tensors[1])], iter(tensors[2:])
    passes: list[_StatePass] = []
    nodes = states[0].new_empty(plan.nodes, len(states[0]), *plan.outgoing[0].size(*states[0].shape[1:3]), states[0].shape[3])
    for state, outgoing in enumerate(plan.outgoing):
        if state >= 2:
            states.append(nodes[state - 2])
        inputs = StateInputs(outgoing, states[state], weights, parameters, plan.training, stream.running, stream.keep)
        passes.append(_StatePass(inputs, stream.compiled))
        passes[-1].add_to(nodes[outgoing.first :], fresh=state == 0)
        if not stream.keep:
            passes.clear()
    states.append(nodes[-1])
    return torch.cat([states[index] for index in plan.concat], dim=3), passes


class _CellFunction(torch.autograd.Function):
    """(weights of the candidates, two states, parameters) → the cell's output."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, stream: Stream, weights: Tensor, *tensors: Tensor) -> Tensor:
        output, ctx.passes = _compute(stream, weights, *tensors)
        ctx.cell, ctx.stream = cell, stream
        ctx.save_for_backward(weights, *tensors)
        return nchw(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        plan, weights = ctx.stream.plan, ctx.saved_tensors[0]
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(ctx, _PlainNodes(ctx.cell, plan), plan.parameters(), gradient)
        passes = ctx.passes or _compute(ctx.stream.again(), *ctx.saved_tensors)[1]
        wanted = any(ctx.needs_input_grad[5:])
        gradient = nhwc(gradient).unflatten(3, (len(plan.concat), -1))
        of_weights = torch.zeros_like(weights)
        of_nodes = gradient.new_zeros(plan.nodes, *gradient.shape[:3], gradient.shape[4])
        of_states = dict(enumerate(of_nodes, start=2))
        for position, index in enumerate(plan.concat):
            if index >= 2:
                of_states[index] += gradient[..., position, :]
        of_convolutions: list[Tensor | None] = []
        of_modules: list[Tensor | None] = []
        for state in reversed(range(len(plan.outgoing))):
            first = plan.outgoing[state].first
            image, *parts = passes[state].backward(of_nodes[first:], of_weights, wanted)
            of_convolutions[:0], of_modules[:0] = parts
            if state >= 2:
                of_states[state] += image
            else:
                of_states[state] = image
        for position, index in enumerate(plan.concat):
            if index < 2:
                of_states[index] = of_states[index] + gradient[..., position, :]
        return None, None, of_weights, nchw(of_states[0]), nchw(of_states[1]), *of_convolutions, *of_modules


def streamed_state(stream: Stream, state: int, weights: Tensor, x: Tensor) -> Tensor:
    """Computes the outgoing edges of one state (B, H, W, C) by themselves: (k, B, H', W', C)."""
    outgoing = stream.plan.outgoing[state]
    return _StateFunction.apply(stream, state, weights, x, *outgoing.convolutions(), *outgoing.remaining())


class _StateFunction(torch.autograd.Function):
    """(weights of the candidates, a state, parameters) → the outputs of its outgoing edges."""

    @staticmethod
    def forward(ctx: Any, stream: Stream, state: int, weights: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.stream, ctx.state = stream, state
        ctx.save_for_backward(weights, x, *parameters)
        nodes, state_pass = _StateFunction._compute(stream, state, weights, x, *parameters)
        ctx.state_pass = state_pass if stream.keep else None
        return nodes

    @staticmethod
    def _compute(stream: Stream, state: int, weights: Tensor, x: Tensor, *parameters: Tensor) -> tuple[Tensor, _StatePass]:
        outgoing = stream.plan.outgoing[state]
        inputs = StateInputs(outgoing, x, weights, iter(parameters), stream.plan.training, stream.running, stream.keep)
        state_pass = _StatePass(inputs, stream.compiled)
        nodes = x.new_empty(outgoing.edges, len(x), *outgoing.size(*x.shape[1:3]), x.shape[3])
        state_pass.add_to(nodes, fresh=True)
        return nodes, state_pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        outgoing = ctx.stream.plan.outgoing[ctx.state]
        if torch.is_grad_enabled():
            own = [*outgoing.convolutions(), *outgoing.remaining()]
            return None, None, *_differentiable_gradients(ctx, _PlainState(ctx.stream.plan.candidates[ctx.state]), own, gradient)
        state_pass = ctx.state_pass or _StateFunction._compute(ctx.stream.again(), ctx.state, *ctx.saved_tensors)[1]
        of_weights = torch.zeros_like(ctx.saved_tensors[0])
        wanted = any(ctx.needs_input_grad[4:])
        image, of_convolutions, of_modules = state_pass.backward(gradient.contiguous(), of_weights, wanted)
        return None, None, of_weights, image, *of_convolutions, *of_modules


class _StatePass:
    """One batch's pass through the outgoing edges of one state: computes forward, and keeps what backward needs."""

    def __init__(self, inputs: StateInputs, compiled: bool) -> None:
        functions = kernels(inputs.x) if compiled and can_compile(inputs.outgoing) else None
        self.mixture: Mixture = PiecewiseMixture(inputs) if functions is None else CompiledMixture(functions, inputs)
        self.unfused = [
            ModulePass(candidate, inputs.x, inputs.weights[candidate.position], inputs.running, inputs.keep)
            for candidate in inputs.outgoing.unfused
        ]

    def add_to(self, nodes: Tensor, *, fresh: bool) -> None:
        """As :meth:`.piecewise.Mixture.add_to`."""
        self.mixture.add_to(nodes, fresh=fresh)
        for module in self.unfused:
            module.add_to(nodes)

    def backward(self, gradient: Tensor, of_weights: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None], list[Tensor | None]]:
        """As :meth:`.piecewise.Mixture.backward`."""
        result, of_convolutions, of_modules = self.mixture.backward(gradient, of_weights, wanted)
        of_modules += [part for module in self.unfused for part in module.backward(gradient[module.place], result, of_weights, wanted)]
        return result, of_convolutions, of_modules


class _PlainNodes(nn.Module):
    """A cell without its preprocessing, in operations that can be differentiated twice."""

    def __init__(self, cell: Cell, plan: Plan) -> None:
        super().__init__()
        self.nodes = cell.nodes
        self.plan = plan

    def forward(self, weights: Tensor, older: Tensor, previous: Tensor) -> Tensor:
        states: list[Tensor] = [older, previous]
        terms: list[list[Tensor]] = [[] for _ in range(self.plan.nodes)]
        for state, edges in enumerate(self.plan.candidates):
            if state >= 2:
                states.append(sum(terms[state - 2][1:], terms[state - 2][0]))
            for node, candidates in enumerate(edges, self.plan.outgoing[state].first):
                terms[node] += [weights[position] * module(states[state]) for module, position in candidates]
        states.append(sum(terms[-1][1:], terms[-1][0]))
        return torch.cat([states[index] for index in self.plan.concat], dim=1)


class _PlainState(nn.Module):
    """The outgoing edges of a state, in operations that can be differentiated twice."""

    def __init__(self, edges: Sequence[Candidates]) -> None:
        super().__init__()
        self.edges = edges
        self.candidates = nn.ModuleList(module for candidates in edges for module, _ in candidates)

    def forward(self, weights: Tensor, x: Tensor) -> Tensor:
        return torch.stack([sum(weights[position] * module(nchw(x)) for module, position in edge) for edge in self.edges]).permute(
            0, 1, 3, 4, 2
        )


def _differentiable_gradients(ctx: Any, plain: nn.Module, own: Sequence[Tensor], gradient: Tensor) -> list[Tensor | None]:
    """Returns gradients that can be differentiated again, by way of the plain execution, whose parameters are its ``own``."""
    weights, *tensors = ctx.saved_tensors
    states, parameters = tensors[: len(tensors) - len(own)], tensors[len(tensors) - len(own) :]
    wanted = ctx.needs_input_grad[-len(ctx.saved_tensors) :]
    saved = {id(mine): parameter for mine, parameter in zip(own, parameters)}
    replaced: dict[str, Tensor] = {name: saved.get(id(mine), mine) for name, mine in plain.named_parameters()}
    replaced |= {name: buffer.clone() for name, buffer in plain.named_buffers()}  # the running statistics have seen this batch
    output = torch.func.functional_call(plain, replaced, (weights, *states))
    inputs = [tensor for tensor, want in zip(ctx.saved_tensors, wanted) if want]
    gradients = iter(torch.autograd.grad(output, inputs, gradient, create_graph=True, allow_unused=True))
    return [next(gradients) if want else None for want in wanted]
