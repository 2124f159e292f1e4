"""The implicit gradient against the whole Hessian, its limits, and the steps that a search takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nni_darts.recipes import Recipe
from nni_darts.runs.costs import cautions
from nni_darts.runs.tasks import task_of
from nni_darts.strategies.architects import BilevelProblem, Implicit, architecture_gradient
from tests.helpers import running
from tests.helpers.stopping import broken_and_resumed, measured
from tests.helpers.tiny import overrides, write_images
from tests.reference.bilevel import implicit_parts
from tests.strategies.architects.test_gradient import RATE, Problem, error


class Convex:
    """A training loss that is quadratic in the weights, with its minimum at w*(α) = A⁻¹·B·tanh(α)."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        self.a = root @ root.T / 4 + 0.3 * torch.eye(4, dtype=torch.float64)
        self.b = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        self.target = torch.randn(4, generator=generator, dtype=torch.float64)
        self.alpha = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
        self.weight = self.minimum(self.alpha).detach().requires_grad_()

    def minimum(self, alpha: Tensor) -> Tensor:
        return torch.linalg.solve(self.a, self.b @ torch.tanh(alpha))

    def valid(self, weight: Tensor, alpha: Tensor) -> Tensor:
        return (weight - self.target).square().sum() + (alpha**2).sum() * weight[0]

    def problem(self, rate: float) -> BilevelProblem:
        def train() -> Tensor:
            return self.weight @ self.a @ self.weight / 2 - self.weight @ self.b @ torch.tanh(self.alpha)

        return BilevelProblem(train, lambda: self.valid(self.weight, self.alpha), [self.weight], [self.alpha], learning_rate=rate)


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
@pytest.mark.parametrize('terms', [0, 1, 2, 7])
def test_it_is_the_sum_of_powers_of_the_whole_hessian(terms: int, weight_decay: float) -> None:
    problem = Problem()
    optimizer = problem.optimizer(True, momentum=0.9, weight_decay=weight_decay)
    losses = [lambda w, a, batch=batch: problem.loss(batch, w, a) for batch in (problem.train, problem.valid)]
    direct, v, hessian, mixed = implicit_parts(*losses, problem.weights, problem.alphas, weight_decay)
    identity = torch.eye(len(v), dtype=torch.float64)
    closed = (identity - torch.linalg.matrix_power(identity - RATE * hessian, terms + 1)) @ torch.linalg.solve(hessian, v)
    summed = RATE * sum(torch.linalg.matrix_power(identity - RATE * hessian, k) @ v for k in range(terms + 1))
    torch.testing.assert_close(closed, summed, rtol=1e-8, atol=1e-10)
    whole = BilevelProblem(*problem.closures(), problem.weights, problem.alphas, optimizer, learning_rate=RATE)
    assert error(architecture_gradient(whole, terms=terms), [direct - mixed @ summed]) <= 1e-10


def test_with_many_terms_it_is_the_derivative_of_the_loss_at_the_minimum() -> None:
    convex = Convex()
    alpha = convex.alpha.detach().clone().requires_grad_()
    expected = torch.autograd.grad(convex.valid(convex.minimum(alpha), alpha), alpha)
    errors = [error(architecture_gradient(convex.problem(0.2), terms=terms), list(expected)) for terms in (0, 2, 10, 400)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and errors[-1] < 1e-9


def test_without_further_terms_it_is_second_order_darts_at_a_minimum() -> None:
    problem = Convex().problem(0.2)
    implicit, second, first = (architecture_gradient(problem, **options) for options in ({'terms': 0}, {'hessian': 'exact'}, {'order': 1}))
    assert error(implicit, second) <= 1e-12 < 0.1 < error(implicit, first)


def test_groups_and_weights_that_no_training_loss_reaches() -> None:
    convex = Convex()
    aside = torch.ones(2, dtype=torch.float64, requires_grad=True)
    whole = convex.problem(0.2)
    optimizer = torch.optim.SGD([{'params': [convex.weight], 'lr': 0.2}, {'params': [aside], 'lr': 0.7, 'weight_decay': 0.1}])
    valid = whole.valid_loss
    other = BilevelProblem(
        whole.train_loss, lambda: valid() + aside.sum(), [convex.weight, aside], [convex.alpha], optimizer, learning_rate=[0.2, 0.7]
    )
    assert error(architecture_gradient(other, terms=3), architecture_gradient(whole, terms=3)) <= 1e-14


@pytest.mark.parametrize('terms', [-1, 0.5])
def test_terms_are_a_whole_number(terms: float) -> None:
    with pytest.raises(ValueError, match='terms must be a whole number from 0'):
        architecture_gradient(Convex().problem(0.2), terms=terms)  # type: ignore[arg-type]


def test_alpha_takes_a_step_for_several_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    gradients = Implicit.gradients

    def counted(self: Implicit, module: object, train: object, valid: object, index: int, shares: object) -> list[Tensor]:
        steps.append(index)
        return gradients(self, module, train, valid, index, shares)

    monkeypatch.setattr(Implicit, 'gradients', counted)
    changes = {'search.epochs': 2, 'space.nodes': 1, 'search.batch_size': 8, 'search.settings.idarts': {'weight_steps': 4}}
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **changes})
    _, result = running.search(recipe, 'idarts', 1, tmp_path / 'out')
    assert steps == [0, 4, 0, 4]  # of six batches in each epoch
    assert result['passes'] == pytest.approx(2 * 0.5 * (1 + 5 / 4), abs=1e-3)


def test_a_resumed_search_is_the_uninterrupted_one(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), 'search.epochs': 3, 'space.nodes': 1})
    one, other = broken_and_resumed(recipe, 'idarts', tmp_path)
    assert one[0] == other[0] and measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


def test_the_warning_about_few_steps_counts_those_of_alpha(tmp_path: Path) -> None:
    changes = {'search.epochs': 2, 'search.batch_size': 8, 'search.architecture_learning_rate': 1e-4}
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **changes})
    found = cautions(recipe, ['darts-1st', 'idarts'], task_of(recipe).load(recipe), ['search'])
    assert [sentence.split(' steps of α')[0] for sentence in found if 'steps of α' in sentence] == ['darts-1st: 12', 'idarts: 4']
