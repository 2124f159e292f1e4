"""ReinMax: the formula, and its bias by enumeration of the draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nni_darts.strategies.relaxations import ReinMax
from tests.reference.sampling import Objective, gradient_of_expectation, reinmax_gradient, straight_through_gradient

ALPHA = torch.tensor([0.3, -0.8, 1.1, 0.0], dtype=torch.float64)
LINEAR = torch.tensor([0.5, -1.0, 2.0, 0.3], dtype=torch.float64)
QUADRATIC = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Scripted(ReinMax):
    """Draws what a test says."""

    index = 0

    def drawn(self, label: str) -> Tensor:
        return torch.eye(4, dtype=torch.float64)[self.index]


def linear(weights: Tensor) -> Tensor:
    return weights @ LINEAR


def quadratic(weights: Tensor) -> Tensor:
    return weights @ QUADRATIC @ weights + weights @ LINEAR


def cubic(weights: Tensor) -> Tensor:
    return (weights @ LINEAR) ** 3


def gradients(objective: Objective, temperature: float = 1.0) -> list[tuple[Tensor, Tensor]]:
    """For each draw: the gradient of α, and that of the weights."""
    found = []
    for index in range(4):
        relaxation, alpha = Scripted(temperature), ALPHA.clone().requires_grad_()
        relaxation.index = index
        weights = relaxation.weights('x', alpha)
        assert torch.equal(weights.detach(), torch.eye(4, dtype=torch.float64)[index])
        found.append(torch.autograd.grad(objective(weights), [alpha, weights]))
    return found


@pytest.mark.parametrize('temperature', [1.0, 1.3])
@pytest.mark.parametrize('objective', [linear, quadratic, cubic])
def test_the_gradient_is_the_published_formula(objective: Objective, temperature: float) -> None:
    for index, (found, g) in enumerate(gradients(objective, temperature)):
        torch.testing.assert_close(found, reinmax_gradient(ALPHA, index, g, temperature), rtol=1e-12, atol=1e-14)
        assert float(found.sum()) == pytest.approx(0, abs=1e-12)  # so nothing is left of the mean, which the authors' code subtracts


@pytest.mark.parametrize(('objective', 'exact'), [(linear, True), (quadratic, True), (cubic, False)])
def test_the_mean_over_draws_is_the_gradient_of_the_expected_loss_up_to_degree_two(objective: Objective, exact: bool) -> None:
    p = torch.softmax(ALPHA, 0)
    mean = sum(probability * found for probability, (found, _) in zip(p, gradients(objective)))
    assert torch.allclose(mean, gradient_of_expectation(ALPHA, objective), rtol=1e-10, atol=1e-12) == exact


def test_straight_through_is_exact_for_degree_one_only() -> None:
    p = torch.softmax(ALPHA, 0)
    for objective, exact in ((linear, True), (quadratic, False)):
        mean = sum(probability * straight_through_gradient(ALPHA, g) for probability, (_, g) in zip(p, gradients(objective)))
        assert torch.allclose(mean, gradient_of_expectation(ALPHA, objective), rtol=1e-10, atol=1e-12) == exact


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    torch.manual_seed(0)
    mean = torch.stack([ReinMax().draw(ALPHA) for _ in range(4000)]).mean(dim=0)
    torch.testing.assert_close(mean, torch.softmax(ALPHA, 0), atol=0.03, rtol=0)


def test_an_operation_without_probability_gets_no_gradient_that_is_no_number() -> None:
    alpha = torch.tensor([0.0, -900.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quadratic(Scripted().weights('x', alpha)), alpha)
    assert gradient.isfinite().all() and float(gradient[1]) == 0 and float(gradient[2].abs()) > 0


def test_a_temperature_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match='temperature must be a number from 1, not 0.9'):
        ReinMax(0.9)
