"""DrNAS: draws, their moments, and the gradient through them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.fast import FastCell
from nni_darts.strategies.registry import find
from nni_darts.strategies.relaxations import DirichletWeights
from nni_darts.strategies.relaxations.base import masked
from nni_darts.strategies.relaxations.dirichlet import concentration
from nni_darts.strategies.supernet import MixedOperation
from nni_darts.strategies.view import Mask
from tests.helpers.compiler import needs_kernels

Made = tuple[DifferentiableStrategy, nn.Module]


def supernet(execution: str = 'plain', **settings: Any) -> Made:
    strategy = DifferentiableStrategy(DirichletWeights(**settings), FirstOrder(), execution=execution)
    torch.manual_seed(0)
    model = strategy.mutate_model(DartsSpace(4, 3, 3, 2, 2)).double()
    strategy.architecture.double()
    torch.manual_seed(1)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    return strategy, model


def images() -> Tensor:
    return torch.randn(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def draws(strategy: DifferentiableStrategy, label: str, count: int) -> Tensor:
    found = []
    torch.manual_seed(2)
    with torch.no_grad():
        for _ in range(count):
            strategy.relaxation.begin_forward()
            found.append(strategy.relaxation.weights(label, strategy.architecture.alpha(label)))
    return torch.stack(found)


def test_the_concentration_is_elu_plus_one() -> None:
    alpha = torch.tensor([-50.0, -1.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.36787944117144233, 1.0, 1.5, 4.0], dtype=torch.float64)
    torch.testing.assert_close(concentration(alpha), expected, rtol=1e-12, atol=1e-12)
    assert float(concentration(torch.tensor([-1e4]))) > 0


def test_weights_have_the_mean_and_variance_of_the_distribution() -> None:
    """β_i / B, and m(1 − m) / (B + 1)."""
    strategy, _ = supernet()
    label = next(iter(strategy.architecture.operations()))
    found, beta = draws(strategy, label, 6000), concentration(strategy.architecture.alpha(label).detach())
    mean = beta / beta.sum()
    torch.testing.assert_close(found.mean(0), mean, atol=0.012, rtol=0)
    torch.testing.assert_close(found.var(0), mean * (1 - mean) / (beta.sum() + 1), atol=0.004, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(6000, dtype=torch.float64))


def test_a_masked_and_renormalised_draw_is_that_of_the_kept_concentrations() -> None:
    """Mean β_i / B_kept, whatever the concentration of the masked candidate is."""
    strategy, _ = supernet()
    label = next(iter(strategy.architecture.operations()))
    for large in (-3.0, 6.0):
        strategy.architecture.alpha(label).data[2] = large
        found = torch.stack([masked(draw, Mask(label, 2, renormalise=True)) for draw in draws(strategy, label, 4000)])
        beta = concentration(strategy.architecture.alpha(label).detach())
        beta[2] = 0.0
        torch.testing.assert_close(found.mean(0), beta / beta.sum(), atol=0.015, rtol=0)


def test_all_cells_of_a_kind_share_a_draw_and_passes_differ() -> None:
    strategy, model = supernet()
    seen: list[tuple[str, Tensor]] = []
    inner = strategy.relaxation.weights

    def watched(label: str, alpha: Tensor) -> Tensor:
        seen.append((label, inner(label, alpha)))
        return seen[-1][1]

    strategy.relaxation.weights = watched
    model(images())
    first = dict(seen)
    assert len(seen) > len(first) and all(torch.equal(first[label], weights) for label, weights in seen)
    seen.clear()
    model(images())
    assert all(not torch.equal(first[label], weights) for label, weights in seen)


def test_the_gradient_of_a_mean_is_that_of_the_expectation() -> None:
    """For a loss c·w, averaging ∂/∂α over draws gives ∂/∂α of c·E[w]."""
    strategy, _ = supernet()
    label = next(iter(strategy.architecture.operations()))
    alpha, costs = strategy.architecture.alpha(label), torch.arange(8, dtype=torch.float64)
    torch.manual_seed(5)
    total = torch.zeros_like(alpha)
    for _ in range(6000):
        strategy.relaxation.begin_forward()
        total += torch.autograd.grad((costs * strategy.relaxation.weights(label, alpha)).sum(), alpha)[0]
    beta = functional.elu(alpha) + 1
    (expected,) = torch.autograd.grad((costs * beta).sum() / beta.sum(), alpha)
    torch.testing.assert_close(total / 6000, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize('execution', ['joined', 'piecewise', 'compiled'])
def test_every_executor_computes_it(execution: str) -> None:
    if execution == 'compiled':
        needs_kernels()
    results = []
    for way in ('plain', execution):
        strategy, model = supernet(way)
        assert any(isinstance(module, FastCell) for module in model.modules()) == (way != 'plain')
        torch.manual_seed(7)
        output = model(images())
        gradients = torch.autograd.grad(output.square().sum(), [*strategy.arch_parameters(), *model.parameters()], allow_unused=True)
        results.append([output, *gradients])
    for one, other in zip(*results, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_copy_of_the_supernet_draws_for_itself() -> None:
    strategy, model = supernet()
    model(images())
    twin = copy.deepcopy(model)
    torch.manual_seed(3)
    expected = model(images())
    torch.manual_seed(3)
    assert torch.equal(twin(images()), expected)
    (edge, *_) = [module for module in twin.modules() if isinstance(module, MixedOperation)]
    assert edge.relaxation is not strategy.relaxation


def test_the_ranking_is_by_softmax_or_by_the_mean() -> None:
    alpha = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    assert torch.equal(DirichletWeights().probabilities(alpha), torch.softmax(alpha, 0))
    beta = torch.tensor([2.0, 3.0, 0.36787944117144233], dtype=torch.float64)
    torch.testing.assert_close(DirichletWeights('mean').probabilities(alpha), beta / beta.sum(), rtol=1e-12, atol=0)


def test_early_stopping_is_refused_in_both_ways() -> None:
    for way in (find('drnas').check, lambda settings: create_strategy('drnas', **settings)):
        with pytest.raises(ValueError, match='early_stopping measures second derivatives in α, and weights drawn'):
            way({'early_stopping': True})
    with pytest.raises(ValueError, match='first ones only'):
        DifferentiableStrategy(DirichletWeights(), early_stopping=True)
