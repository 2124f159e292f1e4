"""SNAS: the concrete distribution, its bias, its sharing among cells, and the single level."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader, Lightning
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import SingleLevel
from nni_darts.strategies.relaxations import Concrete
from tests.helpers.fitting import DECAY, MOMENTUM, RATE, Evaluator, trainer
from tests.helpers.spaces import TwoLabels
from tests.reference.sampling import concrete_pair_expectation, gradient_of_expectation, single_level_steps

STEPS = 3


class Recorded(Concrete):
    """Keeps all draws."""

    def __init__(self, *temperatures: float) -> None:
        super().__init__(*temperatures)
        self.steps: list[dict[str, Tensor]] = []

    def _draw_all(self) -> None:
        super()._draw_all()
        self.steps.append(dict(self._drawn))


class Scripted(Concrete):
    """Has the noise that a test gives it."""

    noise = torch.zeros(2)

    def drawn(self, label: str) -> Tensor:
        return self.noise


def test_the_largest_weight_has_the_probability_of_the_softmax() -> None:
    torch.manual_seed(0)
    relaxation, alpha = Concrete(), torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)
    counts = torch.zeros(3, dtype=torch.float64)
    for _ in range(4000):
        counts[(alpha + relaxation.draw(alpha)).argmax()] += 1
    torch.testing.assert_close(counts / 4000, torch.softmax(alpha, 0), atol=0.03, rtol=0)


def test_a_constant_added_to_alpha_changes_nothing() -> None:
    relaxation, alpha = Scripted(), torch.randn(4, dtype=torch.float64)
    relaxation.noise = relaxation.draw(alpha)
    torch.testing.assert_close(relaxation.weights('x', alpha + 7), relaxation.weights('x', alpha), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('temperature', [1.0, 0.33])
def test_the_gradient_is_that_of_the_expected_mixture_and_biased_for_a_single_operation(temperature: float) -> None:
    """Over equally likely values of the noise, for a loss that is quadratic in the weights of two operations."""
    alpha = torch.tensor([0.7, 0.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.9, -0.4], dtype=torch.float64)

    def objective(weights: Tensor) -> Tensor:
        return (weights @ target - 0.3) ** 2

    relaxation, points = Scripted(temperature, temperature), 2000
    relaxation.begin_step(0.0)
    total = torch.zeros(2, dtype=torch.float64)
    for number in range(points):
        relaxation.noise = torch.tensor([torch.logit(torch.tensor((number + 0.5) / points, dtype=torch.float64)), 0.0], dtype=torch.float64)
        total += torch.autograd.grad(objective(relaxation.weights('x', alpha)), alpha)[0] / points
    shift, expected = 1e-5, []
    for index in range(2):
        offset = shift * torch.eye(2, dtype=torch.float64)[index]
        above, below = (concrete_pair_expectation(alpha.detach() + move, objective, temperature, points) for move in (offset, -offset))
        expected.append((above - below) / (2 * shift))
    torch.testing.assert_close(total, torch.stack(expected), rtol=1e-6, atol=1e-9)
    assert float((total - gradient_of_expectation(alpha, objective)).norm()) > 1e-3


def test_the_bias_falls_with_the_temperature() -> None:
    target = torch.tensor([0.9, -0.4], dtype=torch.float64)
    alpha = torch.tensor([0.7, 0.0], dtype=torch.float64, requires_grad=True)
    exact = gradient_of_expectation(alpha, lambda weights: weights @ target)
    biases = []
    for temperature in (1.0, 0.33, 0.1):
        mixture = concrete_pair_expectation(alpha, lambda weights: weights @ target, temperature, 5000)
        biases.append(float((torch.autograd.grad(mixture, alpha)[0] - exact).norm()))
    assert biases[0] > 4 * biases[1] > 16 * biases[2]


@pytest.mark.parametrize(('progress', 'temperature'), [(0.0, 1.0), (0.5, 0.665), (1.0, 0.33), (1.5, 0.33)])
def test_the_temperature_falls_linearly(progress: float, temperature: float) -> None:
    relaxation = Concrete()
    relaxation.begin_step(progress)
    assert relaxation.temperature == pytest.approx(temperature)


def loader(seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * STEPS, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(2, (4 * STEPS,), generator=generator)
    return DataLoader(TensorDataset(inputs, labels), batch_size=4, sampler=list(range(4 * STEPS)))


@pytest.mark.parametrize('warmup', [0, 1])
def test_every_step_moves_alpha_and_the_weights_along_the_same_training_loss(warmup: int) -> None:
    torch.manual_seed(0)
    relaxation = Recorded()
    strategy = DifferentiableStrategy(relaxation, SingleLevel(), gradient_clip_val=None, warmup_epochs=warmup)
    space = TwoLabels()
    space.last = nn.Linear(8, 2)
    model = strategy.mutate_model(space.double())
    strategy.architecture.double()
    reference, other = copy.deepcopy((strategy, model))

    train = loader(0)
    evaluator = Lightning(Evaluator(), trainer(2, precision='64-true', num_sanity_val_steps=0), train, loader(1))
    strategy.mutate_evaluator(evaluator).evaluate(model)

    batches = [*train, *train]
    weights, alphas = list(other.parameters()), reference.arch_parameters()
    sgd = torch.optim.SGD(weights, RATE, MOMENTUM, weight_decay=DECAY)
    adam = torch.optim.Adam(alphas, 3e-4, (0.5, 0.999), weight_decay=1e-3)

    def loss(_: Any, __: Any, step: int) -> Tensor:
        reference.relaxation.temperature = 1.0 - 0.67 * (step // STEPS)
        reference.relaxation._drawn = relaxation.steps[2 * step + 1]  # the draw of the step of the weights
        return functional.cross_entropy(other(batches[step][0]), batches[step][1])

    single_level_steps(loss, weights, alphas, STEPS * warmup, [sgd])
    single_level_steps(lambda w, a, step: loss(w, a, step + STEPS * warmup), weights, alphas, STEPS * (2 - warmup), [sgd, adam])
    for one, two in zip([*model.parameters(), *strategy.arch_parameters()], [*weights, *alphas], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    assert len(relaxation.steps) == 2 * 2 * STEPS
