"""A cell as one node of autograd's graph with a backward pass of its own, on the CPU: by compiled kernels, or piece by piece.

Time is spent there on moving numbers to and from memory. So

- a batch norm is part of the 1×1 convolution before it (:mod:`.folded`): what is normalised, and its weighted copy, never exist;
- backward keeps only what depthwise convolutions gave, and computes the rest again from that;
- what is computed from an image, or a piece of a batch, stays in the processor's caches from one operation to the next.

Images are (B, H, W, C) in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_darts.search_spaces.cell import Cell
from nni_darts.strategies.fast.compiled import CompiledMixture, can_compile
from nni_darts.strategies.fast.folded import RunningStatistics
from nni_darts.strategies.fast.kernels import kernels
from nni_darts.strategies.fast.piecewise import Given, Mixture, OtherPass, PiecewiseMixture
from nni_darts.strategies.fast.plan import Candidates, Plan, nchw, nhwc

__all__ = ['streamed', 'streamed_state']


def streamed(
    cell: Cell,
    plan: Plan,
    running: RunningStatistics,
    weights: Tensor,
    older: Tensor,
    previous: Tensor,
    *,
    compiled: bool,
    checkpoint: bool = False,
) -> Tensor:
    """Computes a cell from its two preprocessed inputs and the weights of its candidates, in the plan's order.

    Args:
        running: takes new running statistics.
        compiled: by compiled kernels; else piece by piece.
        checkpoint: keep nothing for backward, and compute it again there.
    """
    keep = torch.is_grad_enabled()
    return _CellFunction.apply(cell, plan, running, compiled, keep, checkpoint, weights, older, previous, *plan.parameters())


def _compute(
    plan: Plan, running: RunningStatistics | None, compiled: bool, keep: bool, weights: Tensor, *tensors: Tensor
) -> tuple[Tensor, list[_StatePass]]:
    """The cell's output (B, H, W, C), and for each state what backward needs, if that is to be kept."""
    states, parameters = [nhwc(tensors[0]), nhwc(tensors[1])], iter(tensors[2:])
    passes: list[_StatePass] = []
    nodes = states[0].new_empty(plan.nodes, len(states[0]), *plan.leaving[0].size(*states[0].shape[1:3]), states[0].shape[3])
    for state, leaving in enumerate(plan.leaving):
        if state >= 2:
            states.append(nodes[state - 2])
        passes.append(_StatePass(Given(leaving, states[state], weights, parameters, plan.training, running, keep), compiled))
        passes[-1].add_to(nodes[leaving.first :], fresh=state == 0)
        if not keep:
            passes.clear()
    states.append(nodes[-1])
    return torch.cat([states[index] for index in plan.concat], dim=3), passes


_NOTHING = (None,) * 6
"""The gradients of a cell's inputs that are no tensors."""


class _CellFunction(torch.autograd.Function):
    """(weights of the candidates, two states, parameters) → the cell's output."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        plan: Plan,
        running: RunningStatistics,
        compiled: bool,
        keep: bool,
        checkpoint: bool,
        weights: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        output, ctx.passes = _compute(plan, running, compiled, keep and not checkpoint, weights, *tensors)
        ctx.cell, ctx.plan, ctx.compiled = cell, plan, compiled
        ctx.save_for_backward(weights, *tensors)
        return nchw(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return *_NOTHING, *_differentiable_gradients(ctx, _PlainNodes(ctx.cell, ctx.plan), ctx.plan.parameters(), gradient)
        plan, weights = ctx.plan, ctx.saved_tensors[0]
        passes = ctx.passes or _compute(plan, None, ctx.compiled, True, *ctx.saved_tensors)[1]
        wanted = any(ctx.needs_input_grad[len(_NOTHING) + 3 :])
        gradient = nhwc(gradient).unflatten(3, (len(plan.concat), -1))
        of_weights = torch.zeros_like(weights)
        of_nodes = gradient.new_zeros(plan.nodes, *gradient.shape[:3], gradient.shape[4])
        of_states: list[Any] = [None, None, *of_nodes]
        for position, index in enumerate(plan.concat):
            if index >= 2:
                of_states[index] += gradient[..., position, :]
        results: list[Tensor | None] = []
        others: list[Tensor | None] = []
        for state in reversed(range(len(plan.leaving))):
            leaving = plan.leaving[state]
            image, of_convolutions, of_others = passes[state].backward(of_nodes[leaving.first :], of_weights, wanted)
            results[:0], others[:0] = of_convolutions, of_others
            if state >= 2:
                of_states[state] += image
            else:
                of_states[state] = image
        for position, index in enumerate(plan.concat):
            if index < 2:
                of_states[index] = of_states[index] + gradient[..., position, :]
        return *_NOTHING, of_weights, nchw(of_states[0]), nchw(of_states[1]), *results, *others


def streamed_state(
    plan: Plan, state: int, running: RunningStatistics, weights: Tensor, x: Tensor, *, compiled: bool, checkpoint: bool = False
) -> Tensor:
    """What leaves one state (B, H, W, C) by itself: (k, B, H', W', C). Arguments as for :func:`streamed`."""
    leaving, keep = plan.leaving[state], torch.is_grad_enabled() and not checkpoint
    parameters = (*leaving.convolutions(), *leaving.remaining())
    return _StateFunction.apply(plan, state, running, compiled, keep, weights, x, *parameters)


class _StateFunction(torch.autograd.Function):
    """(weights of the candidates, a state, parameters) → what leaves the state."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        state: int,
        running: RunningStatistics,
        compiled: bool,
        keep: bool,
        weights: Tensor,
        x: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.plan, ctx.state, ctx.compiled = plan, state, compiled
        ctx.save_for_backward(weights, x, *parameters)
        result, made = _StateFunction._compute(ctx, running, keep, weights, x, *parameters)
        ctx.made = made if keep else None
        return result

    @staticmethod
    def _compute(
        ctx: Any, running: RunningStatistics | None, keep: bool, weights: Tensor, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, _StatePass]:
        leaving = ctx.plan.leaving[ctx.state]
        made = _StatePass(Given(leaving, x, weights, iter(parameters), ctx.plan.training, running, keep), ctx.compiled)
        nodes = x.new_empty(leaving.edges, len(x), *leaving.size(*x.shape[1:3]), x.shape[3])
        made.add_to(nodes, fresh=True)
        return nodes, made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 5
        leaving = ctx.plan.leaving[ctx.state]
        if torch.is_grad_enabled():
            own = [*leaving.convolutions(), *leaving.remaining()]
            return *nothing, *_differentiable_gradients(ctx, _PlainState(ctx.plan.offered[ctx.state]), own, gradient)
        made = ctx.made or _StateFunction._compute(ctx, None, True, *ctx.saved_tensors)[1]
        of_weights = torch.zeros_like(ctx.saved_tensors[0])
        wanted = any(ctx.needs_input_grad[len(nothing) + 2 :])
        image, of_convolutions, of_others = made.backward(gradient.contiguous(), of_weights, wanted)
        return *nothing, of_weights, image, *of_convolutions, *of_others


class _StatePass:
    """What leaves one state, for one batch: the forward pass, and what backward needs of it."""

    def __init__(self, given: Given, compiled: bool) -> None:
        functions = kernels(given.x) if compiled and can_compile(given.leaving) else None
        self.mixture: Mixture = PiecewiseMixture(given) if functions is None else CompiledMixture(functions, given)
        self.others = [
            OtherPass(other, given.x, given.weights[other.position], given.running, given.keep) for other in given.leaving.others
        ]

    def add_to(self, nodes: Tensor, *, fresh: bool) -> None:
        """As :meth:`.piecewise.Mixture.add_to`."""
        self.mixture.add_to(nodes, fresh=fresh)
        for other in self.others:
            other.add_to(nodes)

    def backward(self, gradient: Tensor, of_weights: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None], list[Tensor | None]]:
        """As :meth:`.piecewise.Mixture.backward`."""
        result, of_convolutions, of_others = self.mixture.backward(gradient, of_weights, wanted)
        of_others += [part for other in self.others for part in other.backward(gradient[other.place], result, of_weights, wanted)]
        return result, of_convolutions, of_others


class _PlainNodes(nn.Module):
    """A cell without its preprocessing, in operations that can be differentiated twice."""

    def __init__(self, cell: Cell, plan: Plan) -> None:
        super().__init__()
        self.nodes = cell.nodes
        self.plan = plan

    def forward(self, weights: Tensor, older: Tensor, previous: Tensor) -> Tensor:
        states, terms = [older, previous], [[] for _ in range(self.plan.nodes)]
        for state, edges in enumerate(self.plan.offered):
            if state >= 2:
                states.append(sum(terms[state - 2]))
            for node, candidates in enumerate(edges, self.plan.leaving[state].first):
                terms[node] += [weights[position] * module(states[state]) for module, position in candidates]
        states.append(sum(terms[-1]))
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
    """All gradients, to be differentiated again: through the plain execution, whose parameters are its ``own``."""
    weights, *tensors = ctx.saved_tensors
    states, parameters = tensors[: len(tensors) - len(own)], tensors[len(tensors) - len(own) :]
    wanted = ctx.needs_input_grad[-len(ctx.saved_tensors) :]
    saved = {id(mine): parameter for mine, parameter in zip(own, parameters)}
    replaced: dict[str, Tensor] = {name: saved.get(id(mine), mine) for name, mine in plain.named_parameters()}
    replaced |= {name: buffer.clone() for name, buffer in plain.named_buffers()}  # the running statistics have seen this batch
    output = torch.func.functional_call(plain, replaced, (weights, *states))
    inputs = [tensor for tensor, want in zip(ctx.saved_tensors, wanted) if want]
    found = iter(torch.autograd.grad(output, inputs, gradient, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]
