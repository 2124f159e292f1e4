"""The outgoing edges of a state, computed by the compiled kernels of ``cpp/``: one call forward, one back."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors

from nni_darts.strategies.fast.kernels import SIZES, State, pointer
from nni_darts.strategies.fast.piecewise import Given, Mixture
from nni_darts.strategies.fast.plan import Leaving

__all__ = ['CompiledMixture', 'can_compile']


def can_compile(leaving: Leaving) -> bool:
    """Whether there are kernels for all convolutions that leave a state."""
    return all(stage.depthwise[0].kernel_size[0] in SIZES for group in leaving.groups for stage in group.stages)


class CompiledMixture(Mixture):
    """All that leaves one state, but for candidates of other kinds, for one batch: the forward pass, and what backward needs of it.

    As many threads as torch uses share the images.

    Args:
        functions: as :func:`nni_darts.strategies.fast.kernels.kernels` gives them.
    """

    def __init__(self, functions: Any, given: Given) -> None:
        leaving, x, weights, parameters, training, running, _ = given
        self._functions, self._leaving, self._x, self._running = functions, leaving, x, running
        self._weights = weights.detach().contiguous()
        count = sum(len(stage.depthwise) + len(stage.pointwise) for group in leaving.groups for stage in group.stages)
        self._convolutions = count
        found = [next(parameters) for _ in range(count)]
        for reduction in leaving.reductions:
            found += [reduction.module.conv_1.weight, reduction.module.conv_2.weight]
        self._parameters = [parameter.detach().contiguous() for parameter in found]
        self._norms = _norms(leaving)
        self._measured = training
        statistics = [] if training else [part for norm in self._norms for part in (norm.running_mean, norm.running_var)]
        # What the structure points to.
        plan = _plan(leaving)
        self._held = (ctypes.c_long * len(plan))(*plan), _pointers(self._parameters), _pointers(statistics), statistics
        self._state = State(
            *x.shape,
            ctypes.cast(self._held[0], ctypes.c_void_p),
            pointer(x),
            pointer(self._weights),
            ctypes.cast(self._held[1], ctypes.c_void_p),
            None if training else ctypes.cast(self._held[2], ctypes.c_void_p),
            torch.get_num_threads(),
        )
        self._bytes = (ctypes.c_long * 2)()
        functions.measure(ctypes.byref(self._state), self._bytes)
        self._memory: Tensor | None = None

    def add_to(self, nodes: Tensor, *, fresh: bool) -> None:
        self._memory = self._x.new_empty(self._bytes[0], dtype=torch.uint8)
        noted = self._measured and self._running is not None and self._norms
        statistics = self._x.new_empty(len(self._norms), 2, self._x.shape[3], dtype=torch.float64) if noted else None
        self._functions.forward(ctypes.byref(self._state), pointer(self._memory), pointer(nodes), int(fresh), pointer(statistics))
        if statistics is not None:
            self._running.add(self._norms, statistics[:, 0], statistics[:, 1])

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
        found = [None] * len(self._parameters) if of_parameters is None else _unflatten_dense_tensors(of_parameters, self._parameters)
        return result, list(found[: self._convolutions]), list(found[self._convolutions :])


def _norms(leaving: Leaving) -> list[nn.BatchNorm2d]:
    """All batch norms, in the order in which the kernels have them."""
    norms = [norm for group in leaving.groups for stage in group.stages for norm in stage.norms]
    norms += [norm for entry in leaving.pools for norm in entry.norms if norm is not None]
    return norms + [reduction.module.bn for reduction in leaving.reductions]


def _plan(leaving: Leaving) -> list[int]:
    """The numbers that ``Leaving`` in ``cpp/leaving.h`` reads."""
    plan = [leaving.stride, leaving.edges, len(leaving.groups), len(leaving.pools), len(leaving.reductions), leaving.identities]
    for group in leaving.groups:
        stride, dilation = group.stages[0].steps
        size = group.stages[0].depthwise[0].kernel_size[0]
        plan += [size, stride, dilation, len(group.stages), len(group.places), *group.places, *group.positions]
    plan += leaving.skips
    for entry in leaving.pools:
        plan += [0 if isinstance(entry.pool, nn.MaxPool2d) else 1, *entry.positions, *(int(norm is not None) for norm in entry.norms)]
    for reduction in leaving.reductions:
        plan += [reduction.place, reduction.position]
    return plan


def _pointers(tensors: list[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
