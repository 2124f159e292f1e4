"""The two convolutions that a separable one is made of, with gradients from the kernels that are fast.

On the CPU in channels_last, oneDNN has fast depthwise kernels for every forward pass, but for gradients only without dilation, and for
those of weights only up to three columns; elsewhere they are 5 to 15 times slower (torch 2.14, AVX2 and AVX-512). So here

- the gradient of the input is a forward pass with the kernel turned round;
- the gradient of a dilated kernel is computed on the four interleaved quarters of image and gradient, which are not dilated;
- that of a wide kernel is computed in strips of at most three columns;
- a 1×1 convolution is a matrix product.

Whatever else comes (other devices, strides, layouts, a gradient to be differentiated again) goes the usual way. Values are the same, sums
may round differently.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ['DepthwiseConv2d', 'PointwiseConv2d']

_FAST_COLUMNS = 3


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias that keeps the size of the image, or divides it by the stride; odd kernels.

    Args:
        channels: of input and output.
        kernel_size, stride, dilation: as for ``nn.Conv2d``; padding follows from them.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, ⌈H / stride⌉, ⌈W / stride⌉)"""
        if self.stride == (1, 1) and self.dilation[0] <= 2 and _is_fast(x) and torch.is_grad_enabled():
            return _Depthwise.apply(x, self.weight, self.dilation[0])
        return super().forward(x)


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution without bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H, W)"""
        if _is_fast(x):
            return functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)
        return super().forward(x)


def _is_fast(x: Tensor) -> bool:
    return x.device.type == 'cpu' and x.is_contiguous(memory_format=torch.channels_last) and not torch.is_autocast_enabled('cpu')


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], False]
        if torch.is_grad_enabled():  # to be differentiated again: in operations that can be
            padding = [_padding(weight, ctx.dilation)] * 2
            dilation = [ctx.dilation] * 2
            results = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], padding, dilation, False, [0, 0], weight.shape[0], wanted
            )
            return results[0], results[1], None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input = _convolve(gradient, weight.flip(2, 3), ctx.dilation) if wanted[0] else None
        of_weight = _weight_gradient(x, gradient, weight, ctx.dilation) if wanted[1] else None
        return of_input, of_weight, None


def _padding(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] - 1) // 2


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return functional.conv2d(x, weight, None, 1, _padding(weight, dilation), dilation, weight.shape[0])


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Σ over samples and pixels of shifted image · gradient: (C, 1, k, k)"""
    if dilation == 2:
        x, gradient = _quarters(x), _quarters(gradient)
    size, padding = weight.shape[-1], _padding(weight, 1)
    if size <= _FAST_COLUMNS:
        return _strip(x, gradient, weight, padding)
    padded = functional.pad(x, (padding,) * 4)
    width, strips = gradient.shape[3], []
    for left in range(0, size, _FAST_COLUMNS):
        columns = weight[..., left : left + _FAST_COLUMNS]
        part = padded[..., left : left + width + columns.shape[-1] - 1].contiguous(memory_format=torch.channels_last)
        strips.append(_strip(part, gradient, columns, 0))
    return torch.cat(strips, dim=3)


def _strip(x: Tensor, gradient: Tensor, weight: Tensor, padding: int) -> Tensor:
    _, result, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], weight.shape[0], [False, True, False]
    )
    return result


def _quarters(x: Tensor) -> Tensor:
    """(B, C, H, W) → (4B, C, ⌈H / 2⌉, ⌈W / 2⌉): even and odd rows and columns. What is missing of an odd side is zero."""
    b, c, h, w = x.shape
    if h % 2 or w % 2:
        x = functional.pad(x, (0, w % 2, 0, h % 2))
        h, w = h + h % 2, w + w % 2
    x = x.permute(0, 2, 3, 1).reshape(b, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
    return x.reshape(4 * b, h // 2, w // 2, c).permute(0, 3, 1, 2)
