"""The separable and dilated convolutions on the outgoing edges of a state, for a whole batch: forward and backward, written out.

Images are (B, H, W, C) in here, and y is what a batch, or a piece of it, is while H and W do not matter: (n, G, C) for G edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nni_darts.search_spaces.convolutions import depthwise, depthwise_input_gradient, depthwise_weight_gradient
from nni_darts.strategies.fast.folded import FoldedNorm, Moments, RunningStatistics
from nni_darts.strategies.fast.plan import Group, OutgoingEdges, nchw, nhwc

__all__ = ['Convolutions']


class Convolutions:
    """One batch's pass through the convolutions on the outgoing edges of a state: computes forward, and keeps what backward needs.

    A batch goes through in pieces of some images that stay in the processor's caches from one operation to the next.

    Args:
        pieces: of the batch.
        outgoing: candidates on its outgoing edges.
        x: the state, (B, H, W, C)
        parameters: from which those of the convolutions are taken, in the order of the plan.
        training: whether batch norms use the batch's statistics.
        keep: whether there will be a backward pass.

    Attributes:
        last: the last batch norms of all groups, with the 1×1 convolutions before them; None if there are no convolutions.
    """

    def __init__(
        self, pieces: Sequence[slice], outgoing: OutgoingEdges, x: Tensor, parameters: Iterator[Tensor], training: bool, keep: bool
    ) -> None:
        self.pieces = pieces
        self.groups, self.x, self.training, self.keep = outgoing.groups, x, training, keep
        self.channels = x.shape[3]
        self.size = outgoing.size(*x.shape[1:3])
        self.count = x.shape[0] * self.size[0] * self.size[1]
        self.places = outgoing.index([place for group in self.groups for place in group.places])
        self.first: FoldedNorm  # of the groups with two stages, if there are any
        self.last: FoldedNorm
        # The parameters of each group, joined, and the 1×1 convolutions of all first and of all last stages.
        joined: tuple[list[Tensor], list[Tensor]] = [], []
        self.kernels: list[list[Tensor]] = []
        self.slices: list[list[slice]] = []
        for group in self.groups:
            self.kernels.append([])
            self.slices.append([])
            for number, stage in enumerate(group.stages):
                self.kernels[-1].append(torch.cat([next(parameters) for _ in stage.depthwise]))
                matrices = joined[number == len(group.stages) - 1]
                self.slices[-1].append(slice(len(matrices), len(matrices) + len(group.places)))
                matrices += [next(parameters) for _ in stage.pointwise]
        self.inner_matrices = torch.stack(joined[False]).flatten(2) if joined[False] else None
        self.outer_matrices = torch.stack(joined[True]).flatten(2)

    # forward ------------------------------------------------------------------------------------------------------------------------

    def forward(self, factors: Tensor, running: RunningStatistics | None) -> None:
        """Computes all but the last products.

        Args:
            factors: the weights of the candidates, by group and edge.
            running: takes new running statistics; None: this batch has been noted before.
        """
        moments = [
            None if matrices is None or not self.training else Moments(len(matrices), self.channels, self.x)
            for matrices in (self.inner_matrices, self.outer_matrices)
        ]

        def spatial(index: int, stage: int, image: Tensor, *, first: bool) -> Tensor:
            group = self.groups[index]
            y = depthwise(nchw(image), self.kernels[index][stage], *group.steps(stage))
            y = nhwc(y).view(-1, len(group.places), self.channels)
            measured = moments[stage == len(group.stages) - 1]
            if measured is not None:
                measured.add(self.slices[index][stage], y, first=first)
            return y

        self.inner, self.outer = [], []  # piece → group → y, of the first and of the last depthwise convolution
        for number, piece in enumerate(self.pieces):
            tiled = _TiledInput(self.x[piece])
            self.inner.append([spatial(index, 0, tiled(group), first=number == 0) for index, group in enumerate(self.groups)])
        if self.inner_matrices is not None:
            self.first = self._fold(self.inner_matrices, False, moments[False], None, running)
        for number, inner in enumerate(self.inner):
            self.outer.append(
                [
                    spatial(index, 1, self._image(self._middle(index, y)), first=number == 0) if len(self.groups[index].stages) == 2 else y
                    for index, y in enumerate(inner)
                ]
            )
            if not self.keep:
                inner.clear()
        self.last = self._fold(self.outer_matrices, True, moments[True], factors, running)

    def _image(self, y: Tensor) -> Tensor:
        """(n, G, C) → (b, H, W, G·C)"""
        return y.view(-1, *self.size, y.shape[1] * y.shape[2])

    def _middle(self, index: int, y: Tensor) -> Tensor:
        """What the second depthwise convolution reads, from what the first one gave."""
        groups = self.slices[index][0]
        z = torch.empty_like(y)
        torch.bmm(y.transpose(0, 1), self.first.matrix[groups], out=z.transpose(0, 1))
        return z.add_(self.first.bias[groups]).relu_()

    def add_to(self, nodes: Tensor) -> None:
        """Adds the results, but for ``last.bias``, to the k nodes that may read the state, (k, B, H', W', C)."""
        for number, piece in enumerate(self.pieces):
            target = nodes[:, piece].view(len(nodes), -1, self.channels)
            for group, slices, y in zip(self.groups, self.slices, self.outer[number]):
                matrix = self.last.matrix[slices[-1]]
                if group.whole:
                    target.baddbmm_(y.transpose(0, 1), matrix)
                else:
                    for position, place in enumerate(group.places):
                        target[place].addmm_(y[:, position], matrix[position])

    # backward -----------------------------------------------------------------------------------------------------------------------

    def backward(self, gradient: Tensor, total: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """From the gradient of the k nodes, (k, B, H', W', C), and its sums over all pixels, (k, C).

        Args:
            wanted: whether those of parameters are computed.

        Returns:
            The gradients of the state (B, H, W, C), and of the convolutions' parameters in the order of the plan. That of the factors is
            ``last.of_factors``.
        """
        pieces = [gradient[:, piece].view(len(gradient), -1, self.channels) for piece in self.pieces]
        cross = torch.zeros_like(self.last.matrix)
        for g, outer in zip(pieces, self.outer):
            for index, y in enumerate(outer):
                cross[self.slices[index][-1]].baddbmm_(y.permute(1, 2, 0), self._reaching(index, g))
        self.last.backward(cross, total[self.places])
        of_kernels = [[torch.zeros_like(kernel) for kernel in kernels] for kernels in self.kernels] if wanted else []
        between = self._backward_between(pieces, of_kernels)
        result = torch.empty_like(self.x)
        for number, (piece, g) in enumerate(zip(self.pieces, pieces)):
            tiled = _TiledInput(self.x[piece])
            for index, (group, y) in enumerate(zip(self.groups, self.inner[number])):
                if len(group.stages) == 2:
                    inner = self.first.input_gradient(self.slices[index][0], between[number].pop(0).transpose(0, 1), y)
                else:
                    inner = self.last.input_gradient(self.slices[index][0], self._reaching(index, g), y)
                of_image = self._backward_spatial(index, 0, inner, tiled(group), of_kernels)
                tiled.collect(group, of_image)
            result[piece] = tiled.gradient()
        return result, self._of_parameters(of_kernels)

    def _reaching(self, index: int, g: Tensor) -> Tensor:
        """The gradients of the nodes that a group's edges lead to: (k, n, C) → (G, n, C)"""
        group = self.groups[index]
        return g if group.whole else g[list(group.places)]

    def _backward_spatial(self, index: int, stage: int, gradient: Tensor, image: Tensor, of_kernels: list[list[Tensor]]) -> Tensor:
        """Through a depthwise convolution of ``image``: (n, G, C) → (b, H, W, G·C)"""
        arguments = nchw(self._image(gradient)), nchw(image), self.kernels[index][stage], *self.groups[index].steps(stage)
        if of_kernels:
            of_kernels[index][stage] += depthwise_weight_gradient(*arguments)
        return nhwc(depthwise_input_gradient(*arguments))

    def _backward_between(self, pieces: Sequence[Tensor], of_kernels: list[list[Tensor]]) -> list[list[Tensor]]:
        """Back to between the stages of those that have two: piece → group → gradient of what the first batch norm gave, (n, G, C)"""
        if self.inner_matrices is None:
            return [[] for _ in pieces]
        result = []
        cross = torch.zeros_like(self.first.matrix)
        total = torch.zeros_like(self.first.bias)
        for number, g in enumerate(pieces):
            here = []
            for index, (group, slices) in enumerate(zip(self.groups, self.slices)):
                if len(group.stages) == 2:
                    y = self.inner[number][index]
                    middle = self._middle(index, y)
                    outer = self.last.input_gradient(slices[1], self._reaching(index, g), self.outer[number][index])
                    reached = self._backward_spatial(index, 1, outer, self._image(middle), of_kernels).view_as(middle)
                    here.append(torch.ops.aten.threshold_backward(reached, middle, 0))
                    total[slices[0]] += here[-1].sum(0)
                    cross[slices[0]].baddbmm_(y.permute(1, 2, 0), here[-1].transpose(0, 1))
            result.append(here)
        self.first.backward(cross, total)
        return result

    def _fold(
        self, matrices: Tensor, last: bool, moments: Moments | None, factors: Tensor | None, running: RunningStatistics | None
    ) -> FoldedNorm:
        stages = [stage for group in self.groups for stage in (group.stages[-1:] if last else group.stages[:-1])]
        norms = [norm for stage in stages for norm in stage.norms]
        return FoldedNorm(matrices, norms, self.count, moments, factors, running)

    def _of_parameters(self, of_kernels: list[list[Tensor]]) -> list[Tensor | None]:
        """Gradients in the order of the plan, from those of the kernels by group and stage; nothing if there are none."""
        result: list[Tensor | None] = []
        for index, group in enumerate(self.groups):
            for number, stage in enumerate(group.stages):
                if not of_kernels:
                    result += [None] * (2 * len(stage.norms))
                    continue
                folded = self.last if number == len(group.stages) - 1 else self.first
                result += of_kernels[index][number].split(self.channels)
                result += folded.of_weight[self.slices[index][number]].unsqueeze(3).unsqueeze(4).unbind()
        return result


class _TiledInput:
    """ReLU of a piece of a state, repeated side by side once for each edge of a group."""

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self._relu = functional.relu(image)
        self._copies: dict[tuple[int, bool], Tensor] = {}
        self._gradients: dict[tuple[int, bool], Tensor] = {}

    def __call__(self, group: Group) -> Tensor:
        """(b, H, W, G·C); of every second pixel, where a group reads no others."""
        key = len(group.places), group.thinned
        if key not in self._copies:
            relu = self._relu[:, ::2, ::2] if group.thinned else self._relu
            self._copies[key] = relu.unsqueeze(3).expand(*relu.shape[:3], key[0], -1).flatten(3)
        return self._copies[key]

    def collect(self, group: Group, gradient: Tensor) -> None:
        """Takes the gradient of what it gave to a group."""
        key = len(group.places), group.thinned
        if key in self._gradients:
            self._gradients[key] += gradient
        else:
            self._gradients[key] = gradient

    def gradient(self) -> Tensor:
        """That of the state: (b, H, W, C)"""
        total = torch.zeros_like(self._image)
        for (count, thinned), gradient in self._gradients.items():
            target = total[:, ::2, ::2] if thinned else total
            for part in gradient.unflatten(3, (count, -1)).unbind(3):
                target += part
        return torch.ops.aten.threshold_backward(total, self._relu, 0)
