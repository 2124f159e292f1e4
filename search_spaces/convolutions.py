"""Convolutions with correct gradients on every CPU, and fast gradients for the two convolutions of a separable convolution.

oneDNN's weight gradients (torch 2.14) are wrong for two kinds of convolution (docs/upstream/strided-convolutions.md): a strided 1×1
convolution with few channels in channels_last writes past a buffer, and in bfloat16 a stride along a width of one pixel reads
uninitialised memory. The processor determines which kernel runs, so on every CPU

- the weight gradient of a strided 1×1 convolution is computed without a stride, on the pixels that it reads;
- a stride is replaced by 1 if it can only ever reach one pixel.

On the CPU in channels_last, oneDNN has fast depthwise kernels for every forward pass, but its gradients are 5 to 30 times slower with
dilation, with more than three columns, or on small images (AVX-512). Therefore

- the input gradient is computed as a forward pass with the flipped kernel;
- the kernel gradient is also computed as a forward pass, which convolves each image with its gradient;
- kernels are cropped to the part that reaches the pixels of a small image;
- a 1×1 convolution is computed as a matrix product.

All other cases (other devices, other memory layouts, autocast, gradients that are differentiated again) use torch's own implementation.
The values are the same up to rounding, because sums may be computed in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    'Conv2d',
    'DepthwiseConv2d',
    'PointwiseConv2d',
    'conv2d',
    'depthwise',
    'depthwise_input_gradient',
    'depthwise_weight_gradient',
    'depthwise_with_gradients',
]


class Conv2d(nn.Conv2d):
    """An ``nn.Conv2d`` that is computed by :func:`conv2d`, with zero padding given in pixels.

    Example:
        >>> Conv2d(3, 8, 3, stride=2, padding=1)(torch.zeros(1, 3, 5, 5)).shape
        torch.Size([1, 8, 3, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C', H', W') for (B, C, H, W)."""
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias and with an odd kernel. It keeps the size of the image, or divides it by the stride.

    Args:
        channels: number of input and output channels.
        kernel_size, stride, dilation: as for ``nn.Conv2d``; they determine the padding.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, ⌈H / stride⌉, ⌈W / stride⌉) for (B, C, H, W)."""
        return depthwise_with_gradients(x, self.weight, self.stride[0], self.dilation[0])


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution without bias.

    Args:
        in_channels, out_channels, stride: as for ``nn.Conv2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C', ⌈H / stride⌉, ⌈W / stride⌉) for (B, C, H, W)."""
        if self.stride == (1, 1) and _is_cpu(x):
            return functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)
        return conv2d(x, self.weight, stride=self.stride)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Computes ``functional.conv2d`` with gradients that are correct on every CPU (see the docstring of this module)."""
    if x.device.type == 'cpu' and max(stride) > 1 and torch.is_grad_enabled():
        if weight.shape[2:] == (1, 1) and not any(padding):
            if bias is None and groups == 1 and _is_cpu(x):
                return _StridedPointwise.apply(x, weight, tuple(stride))
            x, stride = _every_pixel(x, stride), (1, 1)
        else:
            spans = [step * (size - 1) + 1 - 2 * border for step, size, border in zip(dilation, weight.shape[2:], padding)]
            stride = [1 if side == span else step for side, span, step in zip(x.shape[2:], spans, stride)]
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


class _StridedPointwise(torch.autograd.Function):
    """oneDNN's forward pass and input gradient, which are correct, and a matrix product for the weight gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, None, stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_input, of_weight = ctx.needs_input_grad[:2]
        geometry = ctx.stride, [0, 0], [1, 1], False, [0, 0], 1, [True, False, False]
        return (
            torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry)[0] if of_input else None,
            (_pixels(gradient).T @ _pixels(_every_pixel(x, ctx.stride)))[..., None, None] if of_weight else None,
            None,
        )


def _every_pixel(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Returns the pixels that a 1×1 convolution reads: (B, C, H, W) → (B, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
    return x[:, :, :: stride[0], :: stride[1]]


def _pixels(x: Tensor) -> Tensor:
    """Returns (B·H·W, C) for (B, C, H, W)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def depthwise_with_gradients(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Computes :func:`depthwise` with support for autograd."""
    if _is_cpu(x) and torch.is_grad_enabled():
        return _Depthwise.apply(x, weight, stride, dilation)
    return depthwise(x, weight, stride, dilation)


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Returns the depthwise convolution (B, C, ⌈H / stride⌉, ⌈W / stride⌉) of (B, C, H, W) with (C, 1, k, k)."""
    weight = reaching(weight, x, dilation)
    return conv2d(x, weight, None, [stride] * 2, [_padding(weight, dilation)] * 2, [dilation] * 2, weight.shape[0])


def reaching(weight: Tensor, x: Tensor, dilation: int) -> Tensor:
    """Crops kernels to the part that reaches any pixel of a small image, because oneDNN is slow with a border that reaches none.

    If a program for images of any size is exported, returns the kernels unchanged, because the program must not depend on the size.
    """
    if torch.compiler.is_compiling():
        return weight
    radius = weight.shape[-1] // 2
    reached = (max(x.shape[2:]) - 1) // dilation
    return weight if radius <= reached else weight[..., radius - reached : radius + reached + 1, radius - reached : radius + reached + 1]


def depthwise_input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Returns the gradient of :func:`depthwise` with respect to x, in the shape of x, from the gradient of the result."""
    if _is_cpu(x) and stride == 1:
        return depthwise(gradient, weight.flip(2, 3), 1, dilation)
    return _usual_gradients(gradient, x, weight, stride, dilation, [True, False])[0]


def depthwise_weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Returns the gradient of :func:`depthwise` with respect to the weight, (C, 1, k, k), from the gradient of the result."""
    near = reaching(weight, x, dilation)
    if near.shape[-1] == 1:
        x, stride = _every_pixel(x, [stride] * 2), 1
    if _is_cpu(x) and gradient.shape[2:].numel() > 1 and (near.shape[-1], stride, dilation) != (3, 1, 1):
        result = _weight_gradient(gradient, x, near.shape[-1], stride, dilation)
    else:
        result = _usual_gradients(gradient, x, near, stride, dilation, [False, True])[1]
    border = (weight.shape[-1] - near.shape[-1]) // 2
    return functional.pad(result, (border,) * 4) if border else result


def _is_cpu(x: Tensor) -> bool:
    """Returns whether the kernels here apply: single or double precision in channels_last on the CPU."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return x.device.type == 'cpu' and channels_last and x.dtype.itemsize >= 4 and not torch.is_autocast_enabled('cpu')


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, dilation
        return depthwise(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_input, of_weight = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # double backward needs differentiable operations
            stride, dilation = ctx.geometry
            return *_usual_gradients(gradient, x, weight, stride, dilation, [of_input, of_weight]), None, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            depthwise_input_gradient(gradient, x, weight, *ctx.geometry) if of_input else None,
            depthwise_weight_gradient(gradient, x, weight, *ctx.geometry) if of_weight else None,
            None,
            None,
        )


def grouped_pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Multiplies by the matrices of several groups at once: (n, G, I), (G, O, I) → (n, G, O)."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.einsum('ngi,goi->ngo', x, weight)
    return _GroupedPointwise.apply(x, weight)


class _GroupedPointwise(torch.autograd.Function):
    """Matrix products written directly into the result; autograd's own would transpose every result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_group(x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_input, of_weight = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return torch.einsum('ngo,goi->ngi', gradient, weight), torch.einsum('ngo,ngi->goi', gradient, x)
        return (
            _by_group(gradient, weight) if of_input else None,
            torch.bmm(gradient.permute(1, 2, 0), x.transpose(0, 1)) if of_weight else None,
        )


def _by_group(x: Tensor, matrices: Tensor) -> Tensor:
    result = x.new_empty(*x.shape[:2], matrices.shape[2])
    torch.bmm(x.transpose(0, 1), matrices, out=result.transpose(0, 1))
    return result


def _padding(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] - 1) // 2


def _usual_gradients(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, wanted: list[bool]) -> tuple[Any, Any]:
    """Returns torch's gradients with respect to x and the weight; None for a gradient that is not wanted."""
    padding = [_padding(weight, dilation)] * 2
    results = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, padding, [dilation] * 2, False, [0, 0], weight.shape[0], [*wanted, False]
    )
    return results[0], results[1]


def _weight_gradient(gradient: Tensor, x: Tensor, size: int, stride: int, dilation: int) -> Tensor:
    """Returns Σ over samples and pixels of gradient · shifted image: each image is convolved with its gradient.

    Stride and dilation change roles: neighbours in the gradient are ``stride`` pixels apart in the image, and shifts are multiples of
    ``dilation``.
    """
    batch, channels = x.shape[:2]
    images = x.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1).unsqueeze(0)
    kernels = gradient.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1).unsqueeze(1)
    padding = dilation * (size - 1) // 2
    result = functional.conv2d(images, kernels, None, dilation, padding, stride, batch * channels)
    # An image that is not divisible by the stride leaves room for further shifts.
    result = result[0, :, :size, :size].permute(1, 2, 0).reshape(size, size, batch, channels)
    return result.sum(2).permute(2, 0, 1).unsqueeze(1).contiguous()
