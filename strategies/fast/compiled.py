"""The outgoing edges of a state, computed by the compiled kernels of ``cpp/``: one call forward, one back."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors

from nni_darts.strategies.fast.folded import running_mean_and_variance
from nni_darts.strategies.fast.kernels import SIZES, Kernels, State, pointer, pointers
from nni_darts.strategies.fast.piecewise import Mixture, StateInputs
from nni_darts.strategies.fast.plan import OutgoingEdges

__all__ = ['CompiledMixture', 'can_compile']


def can_compile(outgoing: OutgoingEdges) -> bool:
    """Returns whether there are kernels for all convolutions on the outgoing edges of a state."""
    return all(stage.depthwise[0].kernel_size[0] in SIZES for group in outgoing.groups for stage in group.stages)


class CompiledMixture(Mixture):
    """One batch's pass through the fused candidates on the outgoing edges of one state: computes forward, and keeps what backward needs.

    As many threads as torch uses share the images.

    Args:
        functions: as :func:`nni_darts.strategies.fast.kernels.kernels` gives them.
    """

    def __init__(self, functions: Kernels, inputs: StateInputs) -> None:
        outgoing, x, weights, parameters, training, running, _ = inputs
        self._functions, self._x, self._running = functions, x, running
        self._weights = weights.detach().contiguous()
        count = sum(len(stage.depthwise) + len(stage.pointwise) for group in outgoing.groups for stage in group.stages)
        self._convolutions = count
        tensors = [next(parameters) for _ in range(count)]
        for reduction in outgoing.reductions:
            tensors += [reduction.module.conv_1.weight, reduction.module.conv_2.weight]
        self._parameters = [parameter.detach().contiguous() for parameter in tensors]
        self._norms = _norms(outgoing)
        self._measured = training
        statistics = [] if training else [part for norm in self._norms for part in running_mean_and_variance(norm)]
        # The structure below points to these.
        plan = _plan(outgoing)
        self._referenced = (ctypes.c_long * len(plan))(*plan), pointers(self._parameters), pointers(statistics), statistics
        self._state = State(
            *x.shape,
            ctypes.cast(self._referenced[0], ctypes.c_void_p),
            pointer(x),
            pointer(self._weights),
            ctypes.cast(self._referenced[1], ctypes.c_void_p),
            None if training else ctypes.cast(self._referenced[2], ctypes.c_void_p),
            torch.get_num_threads(),
        )
        self._bytes = (ctypes.c_long * 2)()
        functions.measure(ctypes.byref(self._state), self._bytes)
        self._memory: Tensor | None = None

    def add_to(self, nodes: Tensor, *, fresh: bool) -> None:
        self._memory = self._x.new_empty(self._bytes[0], dtype=torch.uint8)
        running = self._running if self._measured and self._norms else None
        shape = len(self._norms), 2, self._x.shape[3]
        statistics = None if running is None else self._x.new_empty(shape, dtype=torch.float64)
        self._functions.forward(ctypes.byref(self._state), pointer(self._memory), pointer(nodes), int(fresh), pointer(statistics))
        if running is not None and statistics is not None:
            running.add(self._norms, statistics[:, 0], statistics[:, 1])

    def backward(self, gradient: Tensor, of_weights: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None], list[Tensor | None]]:
        result = torch.empty_like(self._x)
        temporary = self._x.new_empty(self._bytes[1], dtype=torch.uint8)
        sums = torch.zeros_like(of_weights, dtype=torch.float64)
        of_parameters = self._x.new_empty(sum(parameter.numel() for parameter in self._parameters)) if wanted else None
        self._functions.backward(
            ctypes.byref(self._state),
            *map(pointer, (self._memory, temporary, gradient, sums, result, of_parameters)),
        )
        of_weights += sums
        parts = [None] * len(self._parameters) if of_parameters is None else _unflatten_dense_tensors(of_parameters, self._parameters)
        return result, list(parts[: self._convolutions]), list(parts[self._convolutions :])


def _norms(outgoing: OutgoingEdges) -> list[nn.BatchNorm2d]:
    """Returns all batch norms, in the order of the kernels."""
    norms = [norm for group in outgoing.groups for stage in group.stages for norm in stage.norms]
    norms += [norm for entry in outgoing.pools for norm in entry.norms if norm is not None]
    return norms + [reduction.module.bn for reduction in outgoing.reductions]


def _plan(outgoing: OutgoingEdges) -> list[int]:
    """Returns the numbers that ``OutgoingEdges`` in ``cpp/outgoing.h`` reads."""
    plan = [outgoing.stride, outgoing.edges, len(outgoing.groups), len(outgoing.pools), len(outgoing.reductions), outgoing.identities]
    for group in outgoing.groups:
        stride, dilation = group.stages[0].steps
        size = group.stages[0].depthwise[0].kernel_size[0]
        plan += [size, stride, dilation, len(group.stages), len(group.places), *group.places, *group.positions]
    plan += outgoing.skips
    for entry in outgoing.pools:
        plan += [0 if isinstance(entry.pool, nn.MaxPool2d) else 1, *entry.positions, *(int(norm is not None) for norm in entry.norms)]
    for reduction in outgoing.reductions:
        plan += [reduction.place, reduction.position]
    return plan
