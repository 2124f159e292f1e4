from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces.convolutions import Conv2d, DepthwiseConv2d, PointwiseConv2d
from tests.helpers.processors import HEAP_CHECKED, INSTRUCTION_SETS

LAYOUTS = {'channels_last': torch.channels_last, 'contiguous': torch.contiguous_format}


def image(layout: str, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()


def plain(module: nn.Conv2d, x: Tensor) -> Tensor:
    return functional.conv2d(x, module.weight, None, module.stride, module.padding, module.dilation, module.groups)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(('kernel_size', 'dilation', 'stride'), list(itertools.product((3, 5, 7), (1, 2, 3), (1, 2))))
def test_depthwise_values_and_gradients(kernel_size: int, dilation: int, stride: int, layout: str) -> None:
    for channels, height, width in itertools.product((1, 4), (1, 2, 5, 8), (1, 3, 8)):
        module = DepthwiseConv2d(channels, kernel_size, stride, dilation).double()
        x = image(layout, 3, channels, height, width)
        output, expected = module(x), plain(module, x)
        assert torch.allclose(output, expected, rtol=1e-12, atol=1e-14)
        weight = torch.randn_like(output)
        gradients = torch.autograd.grad(output, [x, module.weight], weight)
        for gradient, other in zip(gradients, torch.autograd.grad(expected, [x, module.weight], weight)):
            assert gradient.shape == other.shape and torch.allclose(gradient, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize('frozen', ['input', 'weight'])
def test_only_the_gradients_that_are_wanted(frozen: str) -> None:
    module, x = DepthwiseConv2d(4, 5, dilation=2).double(), image('channels_last', 2, 4, 6, 6)
    (x if frozen == 'input' else module.weight).requires_grad_(False)
    kept = module.weight if frozen == 'input' else x
    expected = torch.autograd.grad(plain(module, x).sin().sum(), kept)[0]
    assert torch.allclose(torch.autograd.grad(module(x).sin().sum(), kept)[0], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize('dilation', [1, 2])
def test_gradients_can_be_differentiated_again(dilation: int) -> None:
    module, x = DepthwiseConv2d(2, 3, dilation=dilation).double(), image('channels_last', 1, 2, 4, 5)

    def compute(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(module, {'weight': weight}, (x,)).square()

    assert torch.autograd.gradcheck(compute, (x, module.weight))
    assert torch.autograd.gradgradcheck(compute, (x, module.weight))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_pointwise(layout: str) -> None:
    module, x = PointwiseConv2d(3, 5).double(), image(layout, 2, 3, 4, 6)
    output, expected = module(x), plain(module, x)
    assert torch.allclose(output, expected, rtol=1e-12, atol=1e-14)
    assert output.is_contiguous(memory_format=torch.channels_last) or layout == 'contiguous'
    for gradient, other in zip(
        torch.autograd.grad(output.square().sum(), [x, module.weight]), torch.autograd.grad(expected.square().sum(), [x, module.weight])
    ):
        assert torch.allclose(gradient, other, rtol=1e-12, atol=1e-13)


def test_autocast_goes_the_usual_way() -> None:
    x = image('channels_last', 2, 4, 6, 6).detach().float()
    with torch.autocast('cpu', torch.bfloat16):
        for module in (DepthwiseConv2d(4, 5), PointwiseConv2d(4, 4)):
            output = module(x)
            assert output.dtype == torch.bfloat16
            output.float().sum().backward()
            assert module.weight.grad is not None and module.weight.grad.dtype == torch.float32


# The faults are those of the narrower instruction sets, too; the rest of the suite computes with the processor's own.
@pytest.mark.parametrize(('processor', 'threads'), [('avx2', (1, 2)), pytest.param('native', (1,), marks=pytest.mark.slow)])
def test_every_shape_of_our_networks_in_a_process_of_its_own(processor: str, threads: tuple[int, ...]) -> None:
    limits = {'OMP_NUM_THREADS': str(max(threads)), 'OMP_WAIT_POLICY': 'passive', **INSTRUCTION_SETS[processor]}
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', Path(__file__).parents[1] / 'helpers' / 'convolution_shapes.py', *map(str, threads)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **HEAP_CHECKED, **limits},
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) == len(threads) and all(line.endswith(' cases') for line in lines), lines


STRIDED = {
    'pointwise': lambda: PointwiseConv2d(2, 3, stride=2),
    'square': lambda: Conv2d(2, 3, 3, stride=2, padding=1),
    'row': lambda: Conv2d(2, 2, (1, 7), (1, 2), (0, 3), bias=False),
    'column': lambda: Conv2d(2, 2, (7, 1), (2, 1), (3, 0), bias=False),
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', STRIDED)
def test_strided_convolutions_can_be_differentiated_twice(name: str, layout: str) -> None:
    module = STRIDED[name]().double()
    for size in ((1, 1), (4, 1), (3, 4)):
        x = image(layout, 1, 2, *size)
        expected = functional.conv2d(x, module.weight, module.bias, module.stride, module.padding)
        assert torch.allclose(module(x), expected, rtol=1e-12, atol=1e-14)

        def compute(x: Tensor, weight: Tensor) -> Tensor:
            return torch.func.functional_call(module, {'weight': weight}, (x,)).square()

        assert torch.autograd.gradcheck(compute, (x, module.weight))
        assert torch.autograd.gradgradcheck(compute, (x, module.weight))


@pytest.mark.parametrize('name', STRIDED)
def test_strided_convolutions_compute_in_bfloat16_under_autocast(name: str) -> None:
    module, x = STRIDED[name](), image('channels_last', 2, 2, 6, 1).detach().float()
    with torch.autocast('cpu', torch.bfloat16):
        output = module(x)
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    expected = torch.autograd.grad(plain_biased(module.double(), x.double()).square().sum(), module.weight)[0]
    assert torch.allclose(module.weight.grad.double(), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


def plain_biased(module: nn.Conv2d, x: Tensor) -> Tensor:
    return functional.conv2d(x, module.weight, module.bias, module.stride, module.padding)
