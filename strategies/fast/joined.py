"""A cell in few operations on many channels: for GPUs and for small images, where an operation costs more than what it computes.

All separable convolutions on all outgoing edges of a state are one depthwise convolution, one grouped 1×1 convolution and one batch norm,
and so are all dilated ones; smaller kernels are surrounded by zeros. The weight of a candidate is that of its last batch norm. Images
are (B, H, W, C) in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces.convolutions import depthwise_with_gradients, grouped_pointwise
from nni_darts.strategies.fast.folded import EPS, MOMENTUM, RunningStatistics
from nni_darts.strategies.fast.plan import Group, OutgoingEdges, Plan, nchw, nhwc, running_statistics

__all__ = ['joined']


def joined(plan: Plan, running: RunningStatistics, weights: Tensor, older: Tensor, previous: Tensor) -> Tensor:
    """Computes a cell from its two preprocessed inputs and the weights of its candidates, in the plan's order."""
    states = [nhwc(older), nhwc(previous)]

    def contributions(state: int) -> Tensor:
        return _Joined(plan.outgoing[state], states[state], weights, plan.training, running).contributions()

    sums = contributions(0) + contributions(1)  # of the nodes that still lack inputs: (B, H, W, nodes, C)
    for state in range(2, len(plan.outgoing)):
        states.append(sums[..., 0, :].contiguous())
        sums = sums[..., 1:, :] + contributions(state)
    states.append(sums[..., 0, :])
    return nchw(torch.cat([states[index] for index in plan.concat], dim=3))


class _Joined:
    """The outgoing edges of one state."""

    def __init__(self, outgoing: OutgoingEdges, x: Tensor, weights: Tensor, training: bool, running: RunningStatistics) -> None:
        self.outgoing, self.x, self.weights, self.training, self.running = outgoing, x, weights, training, running
        self.channels = x.shape[3]
        self.relu = functional.relu(x)

    def contributions(self) -> Tensor:
        """To each of the k nodes that may read the state: (B, H', W', k, C)"""
        total = self._bank()
        # Equal steps have equal kernels but for their size.
        alike = sorted(self.outgoing.groups, key=_steps)
        for _, groups in groupby(alike, key=_steps):
            total = self._convolutions(list(groups), total)
        if self.outgoing.reductions:
            total = self._reductions(total)
        for candidate in self.outgoing.unfused:
            output = nhwc(candidate.module(nchw(self.x))).unsqueeze(3) * self.weights[candidate.position]
            total = self._added(total, (candidate.place,), output)
        return self._nothing() if total is None else total

    def _nothing(self) -> Tensor:
        return self.x.new_zeros(len(self.x), *self.outgoing.size(*self.x.shape[1:3]), self.outgoing.edges, self.channels)

    def _added(self, total: Tensor | None, places: Sequence[int], part: Tensor) -> Tensor:
        """Adds (B, H', W', places, C); a place may be there more than once."""
        k = self.outgoing.edges
        if len(places) % k == 0 and tuple(places) == tuple(range(k)) * (len(places) // k):
            if len(places) > k:
                part = part.unflatten(3, (-1, k)).sum(3)
            return part if total is None else total + part
        total = self._nothing() if total is None else total
        return total.index_add(3, self.outgoing.index(places), part.to(total.dtype))

    def _convolutions(self, groups: Sequence[Group], total: Tensor | None) -> Tensor:
        """Separable or dilated convolutions that differ only in the size of their kernels."""
        places = [place for group in groups for place in group.places]
        positions = [position for group in groups for position in group.positions]
        y = self.relu[:, ::2, ::2] if groups[0].thinned else self.relu
        y = y.unsqueeze(3).expand(*y.shape[:3], len(places), self.channels).flatten(3)
        for number in range(len(groups[0].stages)):
            stages = [group.stages[number] for group in groups]
            last = number == len(groups[0].stages) - 1
            kernels = _kernels([module.weight for stage in stages for module in stage.depthwise])
            y = depthwise_with_gradients(nchw(functional.relu_(y) if number else y), kernels, *groups[0].steps(number))
            matrices = torch.stack([module.weight for stage in stages for module in stage.pointwise]).flatten(2)
            y = nhwc(y).unflatten(3, (len(places), -1))
            y = grouped_pointwise(y.flatten(0, 2), matrices).view_as(y).flatten(3)
            y = self._norm(nchw(y), [norm for stage in stages for norm in stage.norms], self._repeated(positions) if last else None)
        return self._added(total, places, y.unflatten(3, (len(places), -1)))

    def _repeated(self, positions: Sequence[int]) -> Tensor:
        """Weights of candidates, once for each channel."""
        return self.weights[self.outgoing.index(positions)].repeat_interleave(self.channels)

    def _norm(self, z: Tensor, norms: Sequence[nn.BatchNorm2d], weight: Tensor | None, halves: int = 1) -> Tensor:
        """Batch norm of (B, G·C, H, W); with two halves channels are in the order half, group, C / 2."""

        def ordered(statistics: Tensor) -> Tensor:
            return statistics.view(halves, len(norms), -1).transpose(0, 1).flatten(1)

        if not self.training:

            def gathered(name: str) -> Tensor:
                return torch.stack([getattr(norm, name) for norm in norms]).unflatten(1, (halves, -1)).transpose(0, 1).flatten()

            return nhwc(functional.batch_norm(z, gathered('running_mean'), gathered('running_var'), weight, None, False, MOMENTUM, EPS))
        z, *statistics = _batch_norm(z, weight)
        self.running.add(norms, *map(ordered, statistics))
        return nhwc(z)

    def _reductions(self, total: Tensor | None) -> Tensor:
        """Skips that halve the size: two 1×1 convolutions, the second one pixel further, side by side."""
        _, height, width, _ = self.relu.shape
        shifted = functional.pad(self.relu, (0, 0, 0, width % 2, 0, height % 2))[:, 1::2, 1::2]
        y = torch.cat([self.relu[:, ::2, ::2], shifted], dim=3)
        modules = [reduction.module for reduction in self.outgoing.reductions]
        matrices = torch.cat([*(module.conv_1.weight for module in modules), *(module.conv_2.weight for module in modules)])
        z = functional.conv2d(nchw(y), matrices, groups=2)
        weights = self.weights[self.outgoing.index([reduction.position for reduction in self.outgoing.reductions])]
        weights = weights.repeat_interleave(self.channels // 2).repeat(2)
        z = self._norm(z, [module.bn for module in modules], weights, halves=2)
        z = z.unflatten(3, (2, len(modules), -1)).transpose(3, 4).flatten(4)
        return self._added(total, [reduction.place for reduction in self.outgoing.reductions], z)

    def _bank(self) -> Tensor | None:
        """Identities and pools: a matrix of the channels of the state and of its pools, normalised, to those of k nodes."""
        outgoing = self.outgoing
        if not len(outgoing.bank):
            return None
        rows = [self.x] if outgoing.skips else []
        x = nchw(self.x)
        for entry in outgoing.pools:
            rows.append(nhwc(entry.pool(x)))
        scales = self.weights[outgoing.bank].unsqueeze(2)
        bias = None
        if not self.training:
            mean, inverse = running_statistics(outgoing, self.x)
            scales = scales * inverse
            bias = -(scales * mean).sum(0).flatten()
        elif outgoing.pools:
            pools = torch.cat(rows[outgoing.identities :], dim=3)
            z, *whole = _batch_norm(nchw(pools), None)
            rows[outgoing.identities :] = [nhwc(z)]
            for entry, *statistics in zip(outgoing.pools, *(part.view(len(outgoing.pools), -1) for part in whole)):
                norms = [norm for norm in entry.norms if norm is not None]
                self.running.add(norms, *(part.expand(len(norms), -1) for part in statistics))
        matrix = scales.transpose(1, 2).unsqueeze(3) * torch.eye(self.channels, dtype=scales.dtype, device=scales.device).unsqueeze(1)
        bank = rows[0] if len(rows) == 1 else torch.cat(rows, dim=3)
        # (P, C, k, C): one output channel of every node from one channel of each row of the bank
        return functional.linear(bank, matrix.reshape(bank.shape[3], -1).t(), bias).unflatten(3, (outgoing.edges, -1))


def _batch_norm(z: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises (B, C, H, W) with the batch's own statistics. Returns the result, means and biased variances.

    Running statistics with a momentum of 1 become those of the batch; the deviations that torch returns have no digits left of a variance
    far below ε.
    """
    count = z.numel() // z.shape[1]
    mean, variance = z.new_zeros(2, z.shape[1], dtype=torch.float64 if z.dtype is torch.float64 else torch.float32).unbind()
    result = torch.native_batch_norm(z, weight, None, mean, variance, True, 1.0, EPS)[0]
    return result, mean, variance * ((count - 1) / count)


def _steps(group: Group) -> tuple[int, tuple[int, int], tuple[int, int]]:
    return len(group.stages), group.stages[0].steps, group.stages[-1].steps


def _kernels(weights: Sequence[Tensor]) -> Tensor:
    """Depthwise kernels of one or several sizes, of the largest one's: (G·C, 1, k, k)"""
    parts = [torch.cat(list(same)) for _, same in groupby(weights, key=lambda weight: weight.shape[-1])]
    size = max(part.shape[-1] for part in parts)
    return torch.cat([functional.pad(part, ((size - part.shape[-1]) // 2,) * 4) if part.shape[-1] < size else part for part in parts])
