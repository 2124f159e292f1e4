"""The same convolutions by the compiled kernels of ``kernels.cpp``: what is computed from an image stays in a core's cache."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from nni_darts.strategies.fast.convolutions import Convolutions
from nni_darts.strategies.fast.folded import FoldedNorm, Moments, RunningStatistics
from nni_darts.strategies.fast.kernels import SIZES, Geometry, Gradient, Part, pointer
from nni_darts.strategies.fast.plan import Leaving

__all__ = ['CompiledConvolutions', 'can_compile']


def can_compile(leaving: Leaving) -> bool:
    """Whether there are kernels for all convolutions that leave a state."""
    return all(stage.depthwise[0].kernel_size[0] in SIZES for group in leaving.groups for stage in group.stages)


class CompiledConvolutions(Convolutions):
    """As many threads as torch uses, each with images of its own.

    Args:
        functions: as :func:`nni_darts.strategies.fast.kernels.kernels` gives them.
    """

    def __init__(self, functions: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._functions = functions
        self._threads = torch.get_num_threads()
        # Where the nodes begin that each group's edges lead to.
        self._offsets = [torch.tensor(group.places) * (self.count * self.channels) for group in self.groups]

    def _geometry(self, index: int, stage: int) -> Any:
        group = self.groups[index]
        height, width = self.size if stage else self.x.shape[1:3]
        kernel = self.kernels[index][stage].shape[-1]
        stride, dilation = group.stages[stage].steps
        return ctypes.byref(Geometry(len(self.x), height, width, self.channels, len(group.places), kernel, stride, dilation))

    def _parts(self) -> Any:
        """What add_to and its derivative go through: (what is pointed to, image, parts, their number)"""
        matrix = self.last.matrix.contiguous()
        parts = (Part * len(self.groups))()
        for part, group, slices, y, offsets in zip(parts, self.groups, self.slices, self.outer, self._offsets):
            part.groups, part.y, part.offsets = len(group.places), pointer(y), pointer(offsets)
            part.matrix = pointer(matrix[slices[-1]])
        image = Geometry(len(self.x), *self.size, self.channels, 0, 1, 1, 1)
        return matrix, ctypes.byref(image), parts, ctypes.c_long(len(parts))

    # forward ------------------------------------------------------------------------------------------------------------------------

    def forward(self, factors: Tensor, running: RunningStatistics | None) -> None:
        moments = [
            Moments(len(matrices), self.channels, matrices.double()) if matrices is not None and self.training else None
            for matrices in self.matrices
        ]

        def spatial(index: int, stage: int, y: Tensor | None) -> Tensor:
            group, (before, *_), of = self.groups[index], self.slices[index], self.slices[index][stage]
            result = self.x.new_empty(self.count, len(group.places), self.channels)
            measured = moments[stage == len(group.stages) - 1]
            matrix, bias = (None, None) if y is None else (self.first.matrix[before].contiguous(), self.first.bias[before])
            self._functions.forward(
                self._geometry(index, stage),
                pointer(self.x if y is None else None),
                pointer(y),
                pointer(matrix),
                pointer(bias),
                pointer(self.kernels[index][stage]),
                pointer(result),
                pointer(None if measured is None else measured.whole[of]),
                self._threads,
            )
            return result

        self.inner = [spatial(index, 0, None) for index in range(len(self.groups))]  # group → y, of the first depthwise convolution
        self.first = self._fold(False, moments[False], None, running)
        self.outer = []  # of the last
        for index, group in enumerate(self.groups):
            self.outer.append(spatial(index, 1, self.inner[index]) if len(group.stages) == 2 else self.inner[index])
            if not self.keep:
                self.inner[index] = None
        self.last = self._fold(True, moments[True], factors, running)

    def add_to(self, nodes: Tensor) -> None:
        _held, *parts = self._parts()
        self._functions.add(*parts, pointer(nodes), self._threads)

    # backward -----------------------------------------------------------------------------------------------------------------------

    def backward(self, gradient: Tensor, total: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        cross = torch.zeros_like(self.last.matrix, dtype=torch.float64, memory_format=torch.contiguous_format)
        _held, *parts = self._parts()
        self._functions.cross(*parts, pointer(gradient), pointer(cross), self._threads)
        self.last.backward(cross, total[self.places])
        of_kernels: list[list[Tensor]] = [[] for _ in self.groups]
        between = self._backward_between(gradient, of_kernels, wanted)
        result = torch.zeros_like(self.x)
        for index, (group, y) in enumerate(zip(self.groups, self.inner)):
            edges = len(group.places)
            if len(group.stages) == 2:
                offsets = torch.arange(edges) * self.channels
                of = _Prepared(self.first, self.slices[index][0], y, between[index], offsets, edges * self.channels)
            else:
                of = _Prepared(self.last, self.slices[index][0], y, gradient, self._offsets[index], self.channels)
            sums = self._kernel_sums(index, 0)
            self._functions.to_state(
                self._geometry(index, 0),
                of.reference,
                pointer(self.x),
                pointer(self.kernels[index][0]),
                pointer(result),
                pointer(sums),
                int(wanted),
                self._threads,
            )
            of_kernels[index].insert(0, self._as_kernels(index, 0, sums))
        return result, self._of_parameters(of_kernels if wanted else [])

    def _backward_between(self, gradient: Tensor, of_kernels: list[list[Tensor]], wanted: bool) -> list[Tensor | None]:
        """Back to between the stages of those that have two: group → gradient of what the first batch norm gave, (n, G, C)"""
        result: list[Tensor | None] = []
        if self.first is None:
            return [None for _ in self.groups]
        moments = Moments(len(self.first.matrix), self.channels, self.first.matrix.double())
        for index, (group, slices) in enumerate(zip(self.groups, self.slices)):
            if len(group.stages) == 1:
                result.append(None)
                continue
            of = _Prepared(self.last, slices[1], self.outer[index], gradient, self._offsets[index], self.channels)
            matrix, bias = self.first.matrix[slices[0]].contiguous(), self.first.bias[slices[0]]
            here = torch.empty_like(self.inner[index])
            above = moments.whole[slices[0]]
            sums = torch.cat([above.flatten(), self._kernel_sums(index, 1).flatten()])
            self._functions.between(
                self._geometry(index, 1),
                of.reference,
                pointer(self.inner[index]),
                pointer(matrix),
                pointer(bias),
                pointer(self.kernels[index][1]),
                pointer(here),
                pointer(sums),
                int(wanted),
                self._threads,
            )
            above.copy_(sums[: above.numel()].view_as(above))
            of_kernels[index].append(self._as_kernels(index, 1, sums[above.numel() :]))
            result.append(here)
        self.first.backward(moments.products, moments.sums)
        return result

    def _kernel_sums(self, index: int, stage: int) -> Tensor:
        kernel = self.kernels[index][stage]
        return torch.zeros(len(self.groups[index].places), kernel.shape[2], kernel.shape[3], self.channels, dtype=torch.float64)

    def _as_kernels(self, index: int, stage: int, sums: Tensor) -> Tensor:
        """(G, k, k, C) → (G·C, 1, k, k)"""
        kernel = self.kernels[index][stage]
        edges, size = len(self.groups[index].places), kernel.shape[-1]
        return sums.view(edges, size, size, self.channels).permute(0, 3, 1, 2).reshape(kernel.shape).to(kernel.dtype)


class _Prepared:
    """The gradient of what depthwise convolutions gave, as the kernels find it; holds what the pointers point to."""

    def __init__(self, norm: FoldedNorm, groups: slice, y: Tensor, gradient: Tensor, offsets: Tensor, step: int) -> None:
        parts = [None if part is None else part[groups].contiguous() for part in (norm.through, norm.direct, norm.constant)]
        self._held = y, gradient, offsets, parts
        through, direct, constant = map(pointer, parts)
        self._structure = Gradient(pointer(y), pointer(gradient), pointer(offsets), step, through, direct, constant)
        self.reference = ctypes.byref(self._structure)
