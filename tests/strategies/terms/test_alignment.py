"""Λ-DARTS: δ against autograd, and the gradient of the weights against the exact one on a smooth network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_darts._nni import LayerChoice, ModelSpace
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.moment import Moment
from nni_darts.strategies.relaxations import Gumbel
from nni_darts.strategies.terms.alignment import Alignment, direction
from nni_darts.strategies.terms.base import Step
from tests.helpers.compiler import needs_kernels
from tests.helpers.spaces import TwoLabels
from tests.reference.alignment import mean_cosine, regularised_gradient


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('layers', [2, 3, 6])
def test_the_direction_is_the_gradient_of_the_mean_cosine(layers: int) -> None:
    gradients = drawn(layers, 10).requires_grad_()
    value = mean_cosine(list(gradients.unbind()))
    (expected,) = torch.autograd.grad(value, gradients)
    torch.testing.assert_close(direction(gradients.detach()), expected, rtol=1e-10, atol=1e-14)


def test_parallel_gradients_have_no_direction() -> None:
    gradients = drawn(1, 7) * torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64)
    assert float(mean_cosine(list(gradients.unbind()))) == pytest.approx(1.0)
    assert float(direction(gradients).abs().max()) < 1e-15


class Smooth(ModelSpace):
    """Three layers with one label, each a choice of three smooth operations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            LayerChoice([nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 5), nn.Sigmoid()], label='layer') for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def smooth(epoch: int, epsilon: float = 1e-4) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The gradient of a step with the term, without it, and the exact one."""
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(architect=FirstOrder())
    model = strategy.mutate_model(Smooth()).double()
    strategy.architecture.double()
    nn.init.normal_(strategy.architecture.alpha('layer'))
    x, y = drawn(8, 5, seed=1), drawn(8, 5, seed=2)

    def loss() -> Tensor:
        return (model(x) - y).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    term = Alignment(0.5, epsilon)
    term.check(strategy.architecture, model)
    step = Step(strategy.architecture, strategy.relaxation, model, optimizer, Moment(epoch, 5), True, loss, loss)
    for alpha in strategy.arch_parameters():
        alpha.requires_grad_(False)
    plain = torch.autograd.grad(loss(), step.weights)
    with term.around(step):
        loss().backward()
        term.gradient(step)
    assert strategy.relaxation.probe is None

    def copied(copies: list[Tensor]) -> Tensor:
        features = x
        for layer, p in zip(model.layers, copies):
            features = features + sum(weight * operation(features) for weight, operation in zip(p, layer.candidates()))
        return (features - y).square().mean()

    p = torch.softmax(strategy.architecture.alpha('layer'), 0)
    exact = regularised_gradient(copied, step.weights, p, 3, 0.5 * epoch / 4)
    return [weight.grad for weight in step.weights], list(plain), exact


@pytest.mark.parametrize('epoch', [1, 4])
def test_a_step_descends_the_loss_minus_the_weighted_mean_cosine(epoch: int) -> None:
    found, plain, exact = smooth(epoch)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert max(float((one - other).abs().max()) for one, other in zip(found, plain)) > 1e-3


def test_the_first_epoch_has_no_term() -> None:
    found, plain, _ = smooth(0)
    assert all(map(torch.equal, found, plain))


@pytest.mark.parametrize('execution', ['joined', 'piecewise', 'compiled'])
def test_every_executor_gives_the_gradient_of_the_plain_one(execution: str) -> None:
    """In cells whose operations are smooth in p; buffers and random state stay as the first pass leaves them."""
    if execution == 'compiled':
        needs_kernels()
    results: list[list[Tensor]] = []
    for way in ('plain', execution):
        torch.manual_seed(0)
        strategy = create_strategy('darts-1st', execution=way)
        model = strategy.mutate_model(DartsSpace(4, 4, 3, 2, 2)).double()
        strategy.architecture.double()
        torch.manual_seed(1)
        for alpha in strategy.arch_parameters():
            nn.init.normal_(alpha)
            alpha.requires_grad_(False)
        x = drawn(6, 2, 8, 8, seed=3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loss(model: Any = model, x: Tensor = x) -> Tensor:
            return model(x).square().mean()

        model(x)
        term = Alignment(2.0)
        term.check(strategy.architecture, model)
        assert all(label.startswith('normal') for label in term._labels)
        step = Step(strategy.architecture, strategy.relaxation, model, optimizer, Moment(1, 2), True, loss, loss)
        with term.around(step):
            loss().backward()
            before, plain = [buffer.clone() for buffer in model.buffers()], [weight.grad.clone() for weight in step.weights]
            term.gradient(step)
        assert all(map(torch.equal, before, model.buffers()))
        results.append([weight.grad - other for weight, other in zip(step.weights, plain)])
    assert max(float(part.abs().max()) for part in results[0]) > 1e-6
    scale = max(float(part.abs().max()) for part in results[0])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * scale)


def test_where_it_cannot_be_used_it_says_so() -> None:
    for way in (lambda: create_strategy('gdas', regularise=['lambda']), lambda: DifferentiableStrategy(Gumbel(), regularise=['lambda'])):
        with pytest.raises(ValueError, match='regularise: lambda perturbs the weights of candidates, and this strategy does not mix'):
            way()
    with pytest.raises(ValueError, match='lambda compares the gradients of two or more cells of a kind'):
        create_strategy('lambda-darts').mutate_model(TwoLabels())


def test_reduction_cells_count_only_if_no_other_kind_of_cell_occurs_twice() -> None:
    for cells, kind in ((4, 'normal'), (3, 'reduce')):
        strategy = create_strategy('lambda-darts')
        strategy.mutate_model(DartsSpace(4, cells, 3, 2, 2))
        (term,) = strategy.step_terms
        assert term._labels == {label for label in strategy.architecture.operations() if label.startswith(kind)}
