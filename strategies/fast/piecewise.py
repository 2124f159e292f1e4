"""The outgoing edges of a state, computed piece by piece in torch's operations.

Images are (B, H, W, C) in here, and y is what a piece of a batch is while H and W do not matter: (n, G, C) for G edges.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.fast.convolutions import Convolutions
from nni_darts.strategies.fast.folded import EPS, RunningStatistics
from nni_darts.strategies.fast.plan import ModuleCandidate, OutgoingEdges, nchw, nhwc, running_statistics

__all__ = ['StateInputs', 'Mixture', 'ModulePass', 'PiecewiseMixture']

PIECE_BYTES = 2**21
"""How much of a state's widest intermediate result is computed at a time."""


class StateInputs(NamedTuple):
    """The inputs of the pass through the outgoing edges of a state.

    Attributes:
        outgoing: candidates on its outgoing edges.
        x: the state, (B, H, W, C)
        weights: weights of all candidates of the cell.
        parameters: iterator from which the parameters of convolutions are taken, in the order of the plan.
        training: whether batch norms use the batch's statistics.
        running: takes new running statistics; None if it has taken those of this batch.
        keep: whether there will be a backward pass.
    """

    outgoing: OutgoingEdges
    x: Tensor
    weights: Tensor
    parameters: Iterator[Tensor]
    training: bool
    running: RunningStatistics | None
    keep: bool


class Mixture(ABC):
    """One batch's pass through the fused candidates on the outgoing edges of one state: computes forward, and keeps what backward needs."""

    @abstractmethod
    def add_to(self, nodes: Tensor, *, fresh: bool) -> None:
        """Adds the outputs of the edges to their k nodes, (k, B, H', W', C); ``fresh``: the nodes hold nothing yet."""

    @abstractmethod
    def backward(self, gradient: Tensor, of_weights: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None], list[Tensor | None]]:
        """From the gradient of the k nodes, (k, B, H', W', C).

        Args:
            of_weights: to which that of the weights is added.
            wanted: whether those of parameters are computed.

        Returns:
            The gradients of the state (B, H, W, C), of the convolutions' parameters in the order of the plan, and of those of reductions.
        """


class PiecewiseMixture(Mixture):
    """A batch goes through in pieces that stay in the processor's caches from one operation to the next."""

    def __init__(self, inputs: StateInputs) -> None:
        outgoing, x, weights, parameters, training, running, keep = inputs
        self.x = x
        self.positions = outgoing.index([position for group in outgoing.groups for position in group.positions])
        widest = max((len(group.places) for group in outgoing.groups), default=1) * x[0].numel() * x.element_size()
        images = max(1, PIECE_BYTES // widest)
        self.pieces = [slice(first, first + images) for first in range(0, x.shape[0], images)]
        self.convolutions: Convolutions | None = None
        if outgoing.groups:
            self.convolutions = Convolutions(self.pieces, outgoing, x, parameters, training, keep)
            self.convolutions.forward(weights[self.positions], running)
        self.bank = _Bank(outgoing, weights, training)
        for piece in self.pieces:
            self.bank.take(x[piece])
        self.bank.finish(x.shape[0] * math.prod(outgoing.size(*x.shape[1:3])), running)
        self.reductions = [ModulePass(reduction, x, weights[reduction.position], running, keep) for reduction in outgoing.reductions]

    def add_to(self, nodes: Tensor, *, fresh: bool) -> None:
        bias = self.bank.bias
        if self.convolutions is not None:
            bias = bias.index_add(0, self.convolutions.places, self.convolutions.last.bias)
        bias = bias.unsqueeze(1)
        for number, piece in enumerate(self.pieces):
            target = nodes[:, piece].view(len(nodes), -1, nodes.shape[4])
            if fresh:
                target.copy_(bias)
            else:
                target += bias
            self.bank.add_to(number, target)
        if self.convolutions is not None:
            self.convolutions.add_to(nodes)
        for reduction in self.reductions:
            reduction.add_to(nodes)

    def backward(self, gradient: Tensor, of_weights: Tensor, wanted: bool) -> tuple[Tensor, list[Tensor | None], list[Tensor | None]]:
        k, channels = len(gradient), gradient.shape[4]
        pieces = [gradient[:, piece].view(k, -1, channels) for piece in self.pieces]
        total = gradient.new_zeros(k, channels)
        for number, g in enumerate(pieces):
            total += g.sum(1)
            self.bank.gather(number, g)
        self.bank.conclude(sum(g.shape[1] for g in pieces), total, of_weights)
        of_parameters: list[Tensor | None] = []
        if self.convolutions is None:
            result = torch.zeros_like(self.x)
        else:
            result, of_parameters = self.convolutions.backward(gradient, total, wanted)
            of_weights.index_add_(0, self.positions, self.convolutions.last.of_factors)
        for number, (piece, g) in enumerate(zip(self.pieces, pieces)):
            self.bank.add_gradient(number, g, self.x[piece], result[piece])
        of_reductions = [part for each in self.reductions for part in each.backward(gradient[each.place], result, of_weights, wanted)]
        return result, of_parameters, of_reductions


class _Bank:
    """Skips and pools of all edges from one state: mixtures of the state itself and of its normalised pools.

    Attributes:
        bias: what is added to each of the k nodes besides: (k, C)
    """

    def __init__(self, outgoing: OutgoingEdges, weights: Tensor, training: bool) -> None:
        self.outgoing = outgoing
        self.training = training
        self.rows = weights[outgoing.bank]  # (P, k)
        self.skips = outgoing.identities
        self.pieces: list[Tensor] = []  # of x and pools, (P, n, C); in training normalised, once the moments are known
        self.maxima: list[Tensor] = []

    def take(self, image: Tensor) -> None:
        """A piece of the state."""
        rows = [image] if self.skips else []
        for entry in self.outgoing.pools:
            if isinstance(entry.pool, nn.MaxPool2d):
                pooled, indices = torch.ops.aten.max_pool2d_with_indices(nchw(image), 3, entry.pool.stride, 1)
                self.maxima.append(indices)
            else:
                pooled = functional.avg_pool2d(nchw(image), 3, entry.pool.stride, 1, count_include_pad=False)
            rows.append(nhwc(pooled))
        self.pieces.append(torch.stack(rows).flatten(1, 3) if rows else image.new_empty(0, 1, image.shape[3]))

    def finish(self, count: int, running: RunningStatistics | None) -> None:
        """After all pieces: normalises."""
        channels = self.pieces[0].shape[2]
        self.bias = self.rows.new_zeros(self.rows.shape[1], channels)
        pools = self.outgoing.pools
        if not self.training:
            # Every edge has running statistics of its own.
            self.mean, self.deviation = running_statistics(self.outgoing, self.pieces[0])
            self.scales = self.rows.unsqueeze(2) * self.deviation
            self.bias = -(self.scales * self.mean).sum(0)
        elif pools:
            parts = [piece[self.skips :] for piece in self.pieces]
            sums = [part.sum(1).double() for part in parts]
            mean = sum(sums[1:], sums[0]) / count
            squares = [(part - mean.to(part.dtype).unsqueeze(1)).square_().sum(1).double() for part in parts]
            var = sum(squares[1:], squares[0]) / count
            inverse = torch.rsqrt(var + EPS)
            for entry, m, v in zip(pools, mean, var):
                norms = [norm for norm in entry.norms if norm is not None]
                if running is not None:
                    running.add(norms, m.expand(len(norms), -1), v.expand(len(norms), -1))
            self.deviation = inverse.to(self.rows.dtype).unsqueeze(1)
            shift = mean.to(self.rows.dtype).unsqueeze(1)
            for part in parts:
                part.sub_(shift).mul_(self.deviation)

    def add_to(self, number: int, target: Tensor) -> None:
        """Adds to a piece of the nodes, (k, n, C)."""
        if not self.training:
            for part, scales in zip(self.pieces[number], self.scales):
                target.addcmul_(part, scales.unsqueeze(1))
        elif len(self.rows):
            target.view(len(target), -1).addmm_(self.rows.t(), self.pieces[number].flatten(1))

    def gather(self, number: int, g: Tensor) -> None:
        """Backward, first: takes a piece of the gradient of the nodes, (k, n, C)."""
        if number == 0:
            self.of_rows = torch.zeros_like(self.rows)
            self.of_mixed = g.new_zeros(2, len(self.outgoing.pools), g.shape[2])
        piece = self.pieces[number]
        if not len(piece):
            return
        if not self.training:
            for row, (part, deviation) in enumerate(zip(piece, self.deviation)):
                self.of_rows[row] += ((g * part).sum(1) * deviation).sum(1)
            return
        flat = g.view(len(g), -1)
        self.of_rows.addmm_(piece.flatten(1), flat.t())
        if self.outgoing.pools:
            mixed = self._mixed(flat, piece)[self.skips :]
            self.of_mixed[0] += mixed.sum(1)
            self.of_mixed[1] += (mixed * piece[self.skips :]).sum(1)

    def _mixed(self, flat: Tensor, piece: Tensor) -> Tensor:
        """What of the nodes' gradient comes back to x and each normalised pool."""
        return (self.rows @ flat).view(piece.shape)

    def conclude(self, count: int, total: Tensor, of_weights: Tensor) -> None:
        """After all pieces: adds to the gradient of the weights; ``total`` is that of the nodes, added up: (k, C)"""
        if not self.training:
            self.of_rows -= (total * self.mean * self.deviation).sum(2)
        self.of_mixed /= count
        of_weights.index_add_(0, self.outgoing.bank.flatten(), self.of_rows.flatten())

    def add_gradient(self, number: int, g: Tensor, image: Tensor, result: Tensor) -> None:
        """Adds to the gradient of a piece of the state, (b, H, W, C)."""
        piece = self.pieces[number]
        if not len(piece):
            return
        if self.training:
            mixed = self._mixed(g.view(len(g), -1), piece)
            if self.outgoing.pools:
                pools = mixed[self.skips :]
                pools.sub_(self.of_mixed[0].unsqueeze(1)).addcmul_(piece[self.skips :], self.of_mixed[1].unsqueeze(1), value=-1)
                pools.mul_(self.deviation)
        else:
            mixed = torch.stack([(g * scales.unsqueeze(1)).sum(0) for scales in self.scales])
        if self.skips:
            result += mixed[0].view_as(result)
        size = len(image), *self.outgoing.size(*image.shape[1:3]), image.shape[3]
        maxima = iter(self.maxima[number * self._max_pools : (number + 1) * self._max_pools])
        for entry, part in zip(self.outgoing.pools, mixed[self.skips :]):
            arguments = nchw(part.view(size)), nchw(image), [3, 3], [self.outgoing.stride] * 2, [1, 1]
            if isinstance(entry.pool, nn.MaxPool2d):
                back = torch.ops.aten.max_pool2d_with_indices_backward(*arguments, [1, 1], False, next(maxima))
            else:
                back = torch.ops.aten.avg_pool2d_backward(*arguments, False, False, None)
            result += nhwc(back)

    @property
    def _max_pools(self) -> int:
        return len(self.maxima) // len(self.pieces)


class ModulePass:
    """A candidate that is computed by its own module, with a graph of its own."""

    def __init__(
        self, candidate: ModuleCandidate[nn.Module], x: Tensor, weight: Tensor, running: RunningStatistics | None, keep: bool
    ) -> None:
        self.place, self._position, self._weight = candidate.place, candidate.position, weight
        # What has been noted before goes to copies.
        buffers = {} if running is not None else {name: buffer.clone() for name, buffer in candidate.module.named_buffers()}
        with torch.set_grad_enabled(keep):
            self._image = x.detach().requires_grad_(keep)
            self._output = torch.func.functional_call(candidate.module, buffers, (nchw(self._image),)).permute(0, 2, 3, 1)
        self._parameters = list(candidate.module.parameters())

    def add_to(self, nodes: Tensor) -> None:
        """Adds to its node."""
        nodes[self.place].addcmul_(self._output.detach(), self._weight)

    def backward(self, g: Tensor, of_image: Tensor, of_weights: Tensor, wanted: bool) -> list[Tensor | None]:
        """From the gradient of the node: adds to those of state and weights, and returns those of its parameters."""
        of_weights[self._position] += (g * self._output.detach()).sum()
        inputs = [self._image, *(parameter for parameter in self._parameters if wanted and parameter.requires_grad)]
        image, *parts = torch.autograd.grad(self._output, inputs, g * self._weight, retain_graph=True, allow_unused=True)
        if image is not None:
            of_image += image
        gradients = iter(parts)
        return [next(gradients) if wanted and parameter.requires_grad else None for parameter in self._parameters]
