"""The fast execution against the plain one: outputs, all gradients and buffers, in float64."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces import S1, S2, S3, S5, DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.fast import FastCell
from nni_darts.strategies.relaxations import AdversarialSoftmax, Fixed, Gumbel, PartialChannels, RandomSoftmax, Softmax

SPACES = {
    'darts': lambda: DartsSpace(4, 4, 3, 2, 4),
    'two nodes, seven operations': lambda: DartsSpace(3, 3, 3, 2, 2, operations=['sep_conv_7x7', 'conv_7x1_1x7', 'none', 'max_pool_3x3']),
    'imagenet stem': lambda: DartsSpace(4, 3, 3, 2, 2, stem='imagenet'),
    's1': lambda: S1(2, 3, 3, 2),
    's2': lambda: S2(2, 3, 3, 2),
    's3': lambda: S3(2, 3, 3, 2),
    's5': lambda: S5(2, 4, 3, 2),
}

Made = tuple[DifferentiableStrategy, nn.Module]


def supernet(name: str, execution: str, relaxation: Any = None, dtype: torch.dtype = torch.float64) -> Made:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation or Softmax(), execution=execution)
    model = strategy.mutate_model(SPACES[name]()).to(dtype)
    strategy.architecture.to(dtype)
    torch.manual_seed(1)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    return strategy, model


def images(size: int = 33, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(6, 2, size, size, dtype=dtype, generator=torch.Generator().manual_seed(2))


def computed(made: Made, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output, and gradients of all α and weights."""
    strategy, model = made
    output = model(x)
    parameters = [*strategy.arch_parameters(), *model.parameters()]
    gradients = torch.autograd.grad(output.square().sum() + output.sum(), parameters, allow_unused=True)
    return output, [torch.zeros_like(p) if gradient is None else gradient for p, gradient in zip(parameters, gradients)]


def same(one: Made, other: Made, x: Tensor, tolerance: float) -> None:
    results = []
    for made in (one, other):
        output, gradients = computed(made, x)
        results.append([output, *gradients, *made[1].buffers()])
    # Relative to the largest value anywhere of its kind: many gradients are zero but for rounding.
    scale = max(float(value.abs().max()) for value in results[0][1:])
    for a, b in zip(*results):
        assert torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance * scale)


def is_fast(model: nn.Module) -> bool:
    cells = [isinstance(cell, FastCell) for cell in model.cells]
    assert len(set(cells)) == 1
    return cells[0]


@pytest.mark.parametrize('size', [16, 33])
@pytest.mark.parametrize('name', SPACES)
def test_everything_is_equal(name: str, size: int) -> None:
    plain, fast = supernet(name, 'plain'), supernet(name, 'fast')
    assert is_fast(fast[1]) and not is_fast(plain[1])
    assert list(plain[1].state_dict()) == list(fast[1].state_dict())
    assert all(map(torch.equal, plain[1].parameters(), fast[1].parameters()))
    for train in (True, True, False):  # the second pass and the evaluation read the buffers of the first
        for _, model in (plain, fast):
            model.train(train)
        same(plain, fast, images(size), 1e-10)


def test_single_precision() -> None:
    """Rounding may put a number on the other side of a ReLU, which changes gradients by more than rounding: rarely."""
    close = 0
    for seed in range(8):
        plain, fast = (supernet('darts', execution, dtype=torch.float32) for execution in ('plain', 'fast'))
        x = torch.randn(6, 2, 33, 33, generator=torch.Generator().manual_seed(seed))
        (output, gradients), (expected, others) = computed(fast, x), computed(plain, x)
        assert torch.allclose(output, expected, rtol=1e-4, atol=1e-5)
        errors = torch.cat([(a - b).flatten() for a, b in zip(gradients, others)])
        close += float(errors.norm()) <= 1e-4 * float(torch.cat([b.flatten() for b in others]).norm())
    assert close >= 6


@pytest.mark.parametrize('train', [True, False])
def test_decided_and_dropped_edges(train: bool) -> None:
    pair = supernet('darts', 'plain'), supernet('darts', 'fast')
    for strategy, model in pair:
        model.train(train)
        names = ['skip_connect', 'max_pool_3x3', 'sep_conv_5x5', 'avg_pool_3x3', 'dil_conv_3x3']
        for position, (label, decision) in enumerate(strategy.architecture.operations().items()):
            if position % 2:
                strategy.architecture.fixed[label] = decision.names.index(names[position // 2 % len(names)])
        strategy.architecture.dropped = {'normal_input_4': [1], 'normal_input_5': [0, 3, 4], 'reduce_input_3': [2]}
    same(*pair, images(), 1e-10)


def test_everything_decided_as_skip() -> None:
    """A node may then be the very state that another one reads: nothing may be added to it in place."""
    pair = supernet('darts', 'plain'), supernet('darts', 'fast')
    for strategy, _ in pair:
        strategy.architecture.fixed = {
            label: decision.names.index('skip_connect') for label, decision in strategy.architecture.operations().items()
        }
        strategy.architecture.dropped = {'normal_input_3': [0, 1], 'reduce_input_4': [0, 1, 2]}
    same(*pair, images(), 1e-10)


@pytest.mark.parametrize('relaxation', [Fixed, RandomSoftmax, AdversarialSoftmax])
def test_other_weights(relaxation: Any) -> None:
    pair = supernet('darts', 'plain', relaxation()), supernet('darts', 'fast', relaxation())
    assert is_fast(pair[1][1])
    x, labels = images(16), torch.arange(6) % 3
    with ExitStack() as stack:
        for strategy, model in pair:
            torch.manual_seed(7)

            def loss(model: nn.Module = model) -> Tensor:
                return functional.cross_entropy(model(x), labels)

            stack.enter_context(strategy.relaxation.weight_step(strategy.architecture, loss, model, 0.5))
        same(*pair, x, 1e-10)


@pytest.mark.parametrize('relaxation', [Gumbel, lambda: PartialChannels(1)])
def test_other_mixtures_stay_plain(relaxation: Any) -> None:
    assert not is_fast(supernet('darts', 'fast', relaxation())[1])


def test_frozen_and_copied() -> None:
    (plain_strategy, plain), (strategy, fast) = supernet('darts', 'plain'), supernet('darts', 'fast')
    sample = strategy.select()
    assert sample == plain_strategy.select()
    x = images(16)
    assert torch.allclose(copy.deepcopy(fast)(x), plain(x), rtol=1e-10)
    assert torch.allclose(fast.freeze(sample)(x), plain.freeze(sample)(x), rtol=1e-10)


def test_the_execution_is_one_of_two() -> None:
    with pytest.raises(ValueError, match='execution must be fast or plain'):
        DifferentiableStrategy(execution='quick')
