"""Batch norm as part of the matrix before it, for many at once.

A batch norm after a 1×1 convolution is an affine map whose coefficients follow from the input's moments: for z = W y the mean is
W·mean(y) and the variance the diagonal of W·cov(y)·Wᵀ. So z need not exist to be normalised, nor does it for the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

__all__ = ['EPS', 'FoldedNorm', 'Moments', 'RunningStatistics', 'is_foldable', 'running_mean_and_variance']

EPS, MOMENTUM = 1e-5, 0.1


def is_foldable(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether it is a batch norm as search uses them: not affine, with running statistics and torch's settings."""
    return (
        isinstance(module, nn.BatchNorm2d)
        and not module.affine
        and module.track_running_stats
        and (module.momentum, module.eps) == (MOMENTUM, EPS)
    )


def running_mean_and_variance(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns the running statistics of a batch norm that tracks them, each of shape (C,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def _wide(tensor: Tensor) -> Tensor:
    """In the precision for what is small but must be exact: differences of moments lose digits."""
    return tensor if tensor.device.type == 'mps' else tensor.double()


class RunningStatistics:
    """New running statistics of the batch norms of a cell, written all at once.

    Args:
        count: over how many numbers each of them is.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._norms: list[nn.BatchNorm2d] = []
        self._means: list[Tensor] = []
        self._variances: list[Tensor] = []

    def add(self, norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor) -> None:
        """Notes the mean and the (biased) variance of this batch for each of some norms: (norms, C)"""
        self._norms += norms
        self._means.append(mean)
        self._variances.append(variance)

    def write(self) -> None:
        """Writes what was noted."""
        if not self._norms:
            return
        buffers = [buffer for norm in self._norms for buffer in running_mean_and_variance(norm)]
        dtype = buffers[0].dtype
        mean = torch.cat(self._means).to(dtype)
        var = torch.cat(self._variances).mul(self._count / (self._count - 1)).to(dtype)
        torch._foreach_lerp_(buffers, [value for pair in zip(mean.unbind(), var.unbind()) for value in pair], MOMENTUM)
        torch._foreach_add_([norm.num_batches_tracked for norm in self._norms if norm.num_batches_tracked is not None], 1)


class Moments:
    """Σ (y − s) and Σ (y − s)ᵀ(y − s) of G groups of C channels, piece by piece, where the shift s is near the mean of y.

    A variance that is a difference of large numbers has few digits. The shift, the mean of the first piece, keeps them small: it is within
    √pieces deviations of the mean, whatever the pieces are.

    Attributes:
        sums: (G, C)
        products: (G, C, C)
        shift: s; (G, C)
    """

    def __init__(self, groups: int, channels: int, like: Tensor) -> None:
        wide = _wide(like.new_zeros(groups, 2 + channels, channels))
        self.sums, self.products = wide[:, 0], wide[:, 2:]
        self.shift = like.new_zeros(groups, channels)

    def add(self, groups: slice, y: Tensor, *, first: bool) -> None:
        """Subtracts the shift from a piece of some groups, (n, G', C), in place, and takes it.

        Args:
            first: take this piece's mean as the shift.
        """
        if first:
            # A mean that is no number is no help: nothing is subtracted then.
            self.shift[groups] = y.mean(0).nan_to_num_(0, 0, 0)
        y -= self.shift[groups]
        self.sums[groups] += y.sum(0)
        self.products[groups] += torch.bmm(y.permute(1, 2, 0), y.transpose(0, 1))


class FoldedNorm:
    """G groups of 1×1 convolution, batch norm and factor as one affine map, ``y @ matrix + bias``.

    Args:
        weight: W of the convolutions, (G, O, I).
        norms: a batch norm for each.
        count: n, how many y there are.
        moments: of y, if the batch is to be normalised with its own; y stands for y − s from there on. Otherwise the running statistics are
            used.
        factors: of the results, (G,); None is 1.
        running: takes the new running statistics, if that is wanted.

    Attributes:
        matrix: (G, I, O)
        bias: (G, O)
        of_weight, of_factors: gradients, after :meth:`backward`.
        through, direct, constant: the gradient of y is y·through + g·direct + constant, after :meth:`backward`; through and constant are
            None if running statistics are used.
    """

    def __init__(
        self,
        weight: Tensor,
        norms: Sequence[nn.BatchNorm2d],
        count: int,
        moments: Moments | None,
        factors: Tensor | None,
        running: RunningStatistics | None,
    ) -> None:
        dtype = weight.dtype
        self._weight = _wide(weight)
        self._count = count
        self._dtype = dtype
        self._mean: Tensor | None = None
        if moments is None:
            self._centre, var = (_wide(torch.stack(same)) for same in zip(*map(running_mean_and_variance, norms)))
        else:
            self._mean = moments.sums.div(count)
            cov = torch.baddbmm(moments.products, self._mean.unsqueeze(2), self._mean.unsqueeze(1), beta=1 / count, alpha=-1)
            self._covered = self._weight @ cov
            self._centre = torch.bmm(self._weight, self._mean.unsqueeze(2)).squeeze(2)
            var = (self._covered * self._weight).sum(2).clamp_(min=0)
        self._inverse = var.add(EPS).rsqrt_()
        if moments is not None and running is not None:
            shifted = torch.bmm(self._weight, _wide(moments.shift).unsqueeze(2)).squeeze(2)
            running.add(norms, self._centre + shifted, var)
        self._factors = None if factors is None else _wide(factors).unsqueeze(1)
        self._scale = self._inverse if self._factors is None else self._inverse * self._factors
        self._scaled = self._scale.unsqueeze(2) * self._weight
        self.matrix = self._scaled.transpose(1, 2).to(dtype)
        self.bias = (self._scale * self._centre).neg_().to(dtype)

    def backward(self, cross: Tensor, total: Tensor) -> None:
        """Prepares :meth:`input_gradient` and finds the gradients of weight and factors.

        Args:
            cross: Σ yᵀg, (G, I, O), where g is the gradient of the result.
            total: Σ g, (G, O).
        """
        dtype = self._dtype
        cross, total = _wide(cross).transpose(1, 2), _wide(total)
        if self._mean is None:
            of_matrix = cross
            of_scale = (cross * self._weight).sum(2).sub_(total * self._centre)
        else:
            of_matrix = torch.baddbmm(cross, total.unsqueeze(2), self._mean.unsqueeze(1), alpha=-1)
            of_scale = (of_matrix * self._weight).sum(2)
        of_inverse = of_scale
        if self._factors is not None:
            self.of_factors = (of_scale * self._inverse).sum(1).to(dtype)
            of_inverse = of_scale * self._factors
        of_weight = self._scale.unsqueeze(2) * of_matrix
        self.direct = self._scaled.to(dtype)
        self.through = self.constant = None
        if self._mean is not None:
            # y moves the variance, too: d var = −1/2 · inverse³ · d inverse, and var = diag(W·cov·Wᵀ).
            of_var = (of_inverse * self._inverse.pow(3)).mul_(-0.5).unsqueeze(2)
            moved = of_var * self._weight
            of_weight.addcmul_(of_var, self._covered, value=2)
            through = torch.bmm(self._weight.transpose(1, 2), moved).mul_(2 / self._count)
            constant = torch.baddbmm(
                torch.bmm(self._mean.unsqueeze(1), through), total.unsqueeze(1), self._scaled, beta=-1, alpha=-1 / self._count
            )
            self.through, self.constant = through.to(dtype), constant.squeeze(1).to(dtype)
        self.of_weight = of_weight.to(dtype)

    def input_gradient(self, groups: slice, gradient: Tensor, y: Tensor) -> Tensor:
        """The gradient of a piece of some groups.

        Args:
            gradient: of the result, (G', n, O).
            y: (n, G', I).

        Returns:
            (n, G', I)
        """
        result = torch.empty_like(y)
        grouped = result.transpose(0, 1)
        if self.through is None or self.constant is None:
            return torch.bmm(gradient, self.direct[groups], out=grouped).transpose(0, 1)
        torch.bmm(y.transpose(0, 1), self.through[groups], out=grouped)
        grouped.baddbmm_(gradient, self.direct[groups])
        return result.add_(self.constant[groups])
