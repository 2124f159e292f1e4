"""Single precision where activations have a large mean: moments, results and gradients of every executor beside torch's own."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.fast import piecewise
from tests.helpers.compiler import needs_kernels

EXECUTORS = ('joined', 'piecewise', 'compiled')


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == 'compiled':
        needs_kernels()
    monkeypatch.setattr(piecewise, 'PIECE_BYTES', 2**16)
    yield request.param


class Lone(nn.Module):
    """The first cell of a supernet without the batch norms before it, so that its states have the moments of its input."""

    def __init__(self, execution: str, dtype: torch.dtype, channels: int, reduction: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.strategy = DifferentiableStrategy(execution=execution)
        model = self.strategy.mutate_model(DartsSpace(channels, 3, num_classes=3, in_channels=2, nodes=3)).to(dtype)
        self.strategy.architecture.to(dtype)
        for number, alpha in enumerate(self.strategy.arch_parameters()):
            alpha.data = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64).to(dtype)
        self.cell = next(cell for cell in model.modules() if hasattr(cell, 'preprocess_0') and _strides(cell) == 1 + reduction)
        self.channels = self.cell.preprocess_1[1].out_channels
        self.cell.preprocess_0 = self.cell.preprocess_1 = nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> dict[str, list[Tensor]]:
        """Everything that a training step reads of the cell."""
        output = self.cell(x, y)
        weights, alphas = list(self.cell.parameters()), self.strategy.arch_parameters()
        target = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape).to(output)
        gradients = torch.autograd.grad((output * target).sum() + output.square().mean(), [*alphas, *weights], allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip([*alphas, *weights], gradients)]
        buffers = dict(self.cell.named_buffers())
        return {
            'output': [output.detach()],
            'mean': [buffer for name, buffer in buffers.items() if name.endswith('running_mean')],
            'variance': [buffer for name, buffer in buffers.items() if name.endswith('running_var')],
            'gradient of α': gradients[: len(alphas)],
            'gradient of weights': gradients[len(alphas) :],
        }


def _strides(cell: nn.Module) -> int:
    return max(m.stride if isinstance(m.stride, int) else max(m.stride) for m in cell.nodes.modules() if isinstance(m, nn.MaxPool2d))


def _error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Largest difference in the units of each tensor's size."""
    return max(((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-300)).item() for a, b in zip(found, exact))


def _states(cell: Lone, ratio: float, size: int = 12, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Two states of deviation 1 and the given mean, in single precision."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(2, batch, cell.channels, size, size, generator=generator, dtype=torch.float64) + ratio
    return tuple(state.contiguous(memory_format=torch.channels_last) for state in drawn.float())


@functools.cache
def by_torch(ratio: float, reduction: bool) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """The results of the plain executor in double and in single precision."""
    exact, plain = (Lone('plain', dtype, 4, reduction) for dtype in (torch.float64, torch.float32))
    x, y = _states(plain, ratio)
    return exact(x.double(), y.double()), plain(x, y)


@pytest.mark.parametrize('reduction', [False, True], ids=['normal', 'reduction'])
@pytest.mark.parametrize('ratio', [0, 10, 100, 300, 1000])
def test_large_means_cost_no_more_digits_than_in_torch(executor: str, ratio: float, reduction: bool) -> None:
    """Rounding moves some numbers to the other side of a ReLU in every executor, torch's own too: gradients are held to a bound only.

    At a mean of 1,000 deviations whole areas of an image lie that close to zero, and there is no bound to hold.
    """
    fast = Lone(executor, torch.float32, 4, reduction)
    wanted, usual = by_torch(ratio, reduction)
    found = fast(*_states(fast, ratio))
    for name in ('output', 'mean', 'variance'):
        assert _error(found[name], wanted[name]) <= 2 * _error(usual[name], wanted[name]) + 1e-6, name
    for name, bound in (('gradient of α', 5e-3), ('gradient of weights', 3e-2)) if ratio < 1000 else ():
        assert _error(found[name], wanted[name]) <= max(bound, 2 * _error(usual[name], wanted[name])), name


def test_variances_far_below_the_epsilon_of_batch_norm_keep_their_digits(executor: str) -> None:
    fast, exact = Lone(executor, torch.float32, 4, False), Lone('plain', torch.float64, 4, False)
    for cell in (fast, exact):
        for norm in (module for module in cell.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_var.zero_()
    x, y = (1e-4 * state for state in _states(fast, 0))
    found, wanted = fast(x, y), exact(x.double(), y.double())
    assert _error(found['variance'], wanted['variance']) < 1e-5


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('image', [0, 3])
def test_what_is_no_number_reaches_the_same_gradients(executor: str, value: float, training: bool, image: int) -> None:
    fast, plain = Lone(executor, torch.float32, 4, False), Lone('plain', torch.float32, 4, False)
    results = []
    for cell in (fast, plain):
        cell.train(training)
        x, y = _states(cell, 0)
        x[image, 1, 5, 5] = value
        results.append(cell(x, y))
    for name in results[0]:
        for found, wanted in zip(results[0][name], results[1][name]):
            assert torch.equal(found.isfinite(), wanted.isfinite()), name
    assert not all(gradient.isfinite().all() for gradient in results[0]['gradient of weights'])
