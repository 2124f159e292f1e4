"""Compares every shape of convolution in this package's networks, small, with float64.

It runs in a separate process, because a wrong kernel may crash it. Its arguments are numbers of threads. For each of them, it prints a
line for each wrong result, and a line with the number of cases.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nni_darts.search_spaces.convolutions import Conv2d, DepthwiseConv2d, PointwiseConv2d

CHANNELS = (1, 2, 3, 4, 6, 7, 16)
SIZES = ((1, 1), (2, 2), (3, 3), (8, 8), (4, 1), (1, 5))
LAYOUTS = (torch.channels_last, torch.contiguous_format)

MODULES: dict[str, Callable[[int], nn.Conv2d]] = {
    'reduction': lambda channels: PointwiseConv2d(channels, 2 * channels, stride=2),
    'odd reduction': lambda channels: PointwiseConv2d(channels, (channels + 1) // 2, stride=2),
    'pointwise': lambda channels: PointwiseConv2d(channels, channels),
    'preprocessing': lambda channels: Conv2d(channels, 8, 1, bias=False),
    'candidate of NAS-Bench-201': lambda channels: Conv2d(channels, channels, 3, padding=1, bias=False),
    'stem or residual block': lambda channels: Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
    'row': lambda channels: Conv2d(channels, channels, (1, 7), (1, 2), (0, 3), bias=False),
    'column': lambda channels: Conv2d(channels, channels, (7, 1), (2, 1), (3, 0), bias=False),
    'end of the auxiliary head': lambda channels: Conv2d(channels, 24, 2, bias=False),
    **{
        f'depthwise {kernel_size}, stride {stride}, dilation {dilation}': lambda channels, sizes=(kernel_size, stride, dilation): (
            DepthwiseConv2d(channels, *sizes)
        )
        for (kernel_size, dilation), stride in itertools.product(((3, 1), (5, 1), (7, 1), (3, 2), (5, 2)), (1, 2))
    },
}


def results(module: nn.Conv2d, x: Tensor, compute: Callable[[nn.Conv2d, Tensor], Tensor], layout: torch.memory_format) -> list[Tensor]:
    """Returns the output, and its gradients with respect to the image and the weight."""
    x = x.detach().requires_grad_()
    output = compute(module, x)
    gradient = torch.linspace(-1, 1, output.numel()).view(output.shape).to(output.dtype).contiguous(memory_format=layout)
    return [output, *torch.autograd.grad(output, [x, module.weight], gradient)]


def plain(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Returns the output as torch computes it without oneDNN."""
    with torch.backends.mkldnn.flags(enabled=False):
        return nn.functional.conv2d(x, module.weight, None, module.stride, module.padding, module.dilation, module.groups)


def main() -> None:
    cases = 0
    for (name, make), channels, size in itertools.product(MODULES.items(), CHANNELS, SIZES):
        if 'head' in name and min(size) < 2:
            continue
        layouts = [(LAYOUTS[0], LAYOUTS[0]), (LAYOUTS[1], LAYOUTS[1])] if 'depthwise' in name else list(itertools.product(LAYOUTS, LAYOUTS))
        # bfloat16 has a precision of eight bits, or 0.4 %; a gradient of an image is the sum of up to 49 such numbers.
        for dtype, tolerance, tried in ((torch.float32, 1e-5, layouts), (torch.bfloat16, 0.05, layouts[:1])):
            if dtype == torch.bfloat16 and channels not in (3, 16):
                continue
            torch.manual_seed(channels)
            module, x = make(channels).to(dtype), torch.randn(16, channels, *size).to(dtype)
            expected = results(copy.deepcopy(module).double(), x.double(), plain, torch.contiguous_format)
            for of_image, of_gradient in tried:
                found = results(module, x.contiguous(memory_format=of_image), type(module).forward, of_gradient)
                for what, one, other in zip(('output', 'gradient of the image', 'gradient of the weight'), found, expected):
                    error = float(((one.double() - other).abs().max() / other.abs().max().clamp_min(1)).detach())
                    if not error < tolerance:
                        print(f'{name}, {channels} channels, {size}, {dtype}, {of_image}, {of_gradient}: {what} is off by {error}')
                cases += 1
    print(f'{cases} cases')


if __name__ == '__main__':
    for threads in map(int, sys.argv[1:]):
        torch.set_num_threads(threads)
        main()
