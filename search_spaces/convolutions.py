"""The two convolutions that a separable one is made of, with gradients from the kernels that are fast.

On the CPU in channels_last, oneDNN has fast depthwise kernels for every forward pass, but its gradients are 5 to 30 times slower with
dilation, with more than three columns, or on small images (torch 2.14, AVX-512). So here

- the gradient of the input is a forward pass with the kernel turned round;
- that of the kernel is a forward pass, too: each image convolved with its gradient;
- kernels lose the border that does not reach a small image;
- a 1×1 convolution is a matrix product.

Whatever else comes (other devices, other layouts, autocast, a gradient to be differentiated again) goes the usual way. Values are the same;
sums may round differently.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    'DepthwiseConv2d',
    'PointwiseConv2d',
    'depthwise',
    'depthwise_input_gradient',
    'depthwise_weight_gradient',
    'depthwise_with_gradients',
]


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
        return depthwise_with_gradients(x, self.weight, self.stride[0], self.dilation[0])


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution without bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H, W)"""
        if _is_cpu(x):
            return functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)
        return super().forward(x)


def depthwise_with_gradients(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """As :func:`depthwise`, for autograd."""
    if _is_cpu(x) and torch.is_grad_enabled():
        return _Depthwise.apply(x, weight, stride, dilation)
    return depthwise(x, weight, stride, dilation)


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """(B, C, H, W), (C, 1, k, k) → (B, C, ⌈H / stride⌉, ⌈W / stride⌉)"""
    weight = reaching(weight, x, dilation)
    return functional.conv2d(x, weight, None, stride, _padding(weight, dilation), dilation, weight.shape[0])


def reaching(weight: Tensor, x: Tensor, dilation: int) -> Tensor:
    """The middle of kernels that reaches any pixel of an image so small that their border does not: oneDNN is slow with such a border."""
    radius = weight.shape[-1] // 2
    reached = (max(x.shape[2:]) - 1) // dilation
    return weight if radius <= reached else weight[..., radius - reached : radius + reached + 1, radius - reached : radius + reached + 1]


def depthwise_input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The gradient of :func:`depthwise` in x, shaped like x, from the gradient of its result."""
    if _is_cpu(x) and stride == 1:
        return depthwise(gradient, weight.flip(2, 3), 1, dilation)
    return _usual_gradients(gradient, x, weight, stride, dilation, [True, False])[0]


def depthwise_weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The gradient of :func:`depthwise` in its weight, (C, 1, k, k), from the gradient of its result."""
    near = reaching(weight, x, dilation)
    if _is_cpu(x) and gradient.shape[2:].numel() > 1 and (near.shape[-1], stride, dilation) != (3, 1, 1):
        result = _weight_gradient(gradient, x, near.shape[-1], stride, dilation)
    else:
        result = _usual_gradients(gradient, x, near, stride, dilation, [False, True])[1]
    border = (weight.shape[-1] - near.shape[-1]) // 2
    return functional.pad(result, (border,) * 4) if border else result


def _is_cpu(x: Tensor) -> bool:
    return x.device.type == 'cpu' and x.is_contiguous(memory_format=torch.channels_last) and not torch.is_autocast_enabled('cpu')


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
        if torch.is_grad_enabled():  # to be differentiated again: in operations that can be
            return *_usual_gradients(gradient, x, weight, *ctx.geometry, [of_input, of_weight]), None, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            depthwise_input_gradient(gradient, x, weight, *ctx.geometry) if of_input else None,
            depthwise_weight_gradient(gradient, x, weight, *ctx.geometry) if of_weight else None,
            None,
            None,
        )


def grouped_pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Matrices of several groups at once: (n, G, I), (G, O, I) → (n, G, O)"""
    if torch.is_autocast_enabled(x.device.type):
        return torch.einsum('ngi,goi->ngo', x, weight)
    return _GroupedPointwise.apply(x, weight)


class _GroupedPointwise(torch.autograd.Function):
    """Products written where they belong: autograd's own would transpose every result."""

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


def _usual_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    padding = [_padding(weight, dilation)] * 2
    results = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, padding, [dilation] * 2, False, [0, 0], weight.shape[0], [*wanted, False]
    )
    return results[0], results[1]


def _weight_gradient(gradient: Tensor, x: Tensor, size: int, stride: int, dilation: int) -> Tensor:
    """Σ over samples and pixels of gradient · shifted image: the image of each sample and channel convolved with its gradient.

    Stride and dilation change places: neighbours of the gradient are ``stride`` pixels apart in the image, shifts ``dilation``.
    """
    batch, channels = x.shape[:2]
    images = x.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1).unsqueeze(0)
    kernels = gradient.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1).unsqueeze(1)
    padding = dilation * (size - 1) // 2
    result = functional.conv2d(images, kernels, None, dilation, padding, stride, batch * channels)
    # An image that a stride does not divide leaves room for further shifts.
    result = result[0, :, :size, :size].permute(1, 2, 0).reshape(size, size, batch, channels)
    return result.sum(2).permute(2, 0, 1).unsqueeze(1).contiguous()
