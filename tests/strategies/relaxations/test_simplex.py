"""From any finite α and any draw, the weights of every relaxation are finite, at least 0, and sum to 1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies.architecture import Mask
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.relaxations import AdversarialSoftmax, Fixed, Gumbel, PartialChannels, RandomSoftmax, SkipDropout, Softmax
from nni_darts.strategies.relaxations.base import onto_simplex
from nni_darts.strategies.relaxations.policies import UniformPolicy
from nni_darts.strategies.relaxations.subsets import slot_weights, subset_weights
from tests.reference.attack import linf_pgd, project

RELAXATIONS = {
    'softmax': Softmax,
    'fixed': Fixed,
    'random perturbation': RandomSoftmax,
    'adversarial perturbation': lambda: AdversarialSoftmax(steps=2),
    'adversarial from the centre': lambda: AdversarialSoftmax(steps=2, random_start=False),
    'gumbel': Gumbel,
    'partial channels': lambda: PartialChannels(1),
    'skip dropout': lambda: SkipDropout(0.5),
}
LARGEST = torch.finfo(torch.float32).max
ALPHA = st.lists(
    st.one_of(st.floats(-5, 5, width=32), st.floats(-LARGEST, LARGEST, width=32), st.sampled_from([LARGEST, -LARGEST, 100.0, -100.0])),
    min_size=2,
    max_size=8,
)


def check(weights: Tensor, total: float = 1.0) -> None:
    assert torch.isfinite(weights).all() and float(weights.min()) >= 0
    assert float(weights.double().sum()) == pytest.approx(total, abs=1e-5)


class Table:
    """Stands in the place of an architecture of one choice."""

    def __init__(self, alpha: Tensor) -> None:
        self._alpha = alpha

    def alpha(self, label: str) -> Tensor:
        return self._alpha

    def operations(self) -> dict[str, None]:
        return {'x': None}


@pytest.mark.parametrize('name', RELAXATIONS)
@given(values=ALPHA, seed=st.integers(0, 2**31), progress=st.floats(0, 2))
def test_weights_of_every_relaxation(name: str, values: list[float], seed: int, progress: float) -> None:
    torch.manual_seed(seed)
    alpha, relaxation = torch.tensor(values), RELAXATIONS[name]()
    factors = torch.randn(len(values))
    relaxation.begin_step(progress)
    with relaxation.weight_step(Table(alpha), lambda: (relaxation.weights('x', alpha) * factors).sum(), nn.Identity(), progress):
        check(relaxation.weights('x', alpha))
    check(relaxation.probabilities(alpha))
    if isinstance(relaxation, Gumbel):
        check(relaxation._draw('x', alpha, 0)[0])


@given(values=ALPHA, seed=st.integers(0, 2**31))
def test_renormalised_weights_without_one_candidate(values: list[float], seed: int) -> None:
    torch.manual_seed(seed)
    alpha, seen = torch.tensor(values), torch.eye(len(values))
    candidates = [_Constant(row) for row in seen]
    masked = seed % len(values)
    weights = Softmax().mix('x', alpha, candidates, (), {}, Mask('x', masked, True))
    check(weights)
    assert float(weights[masked]) == 0


class _Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> Tensor:
        return self.value


@given(values=ALPHA, chosen=st.sampled_from([None, 1, 2]))
def test_weights_of_several_inputs(values: list[float], chosen: int | None) -> None:
    alpha = torch.tensor(values)
    weights = subset_weights(alpha, chosen)
    assert torch.isfinite(weights).all() and float(weights.min()) >= 0
    check(subset_weights(alpha, chosen, mean=True))
    if chosen is not None:
        check(weights, chosen)
        for row in slot_weights(alpha, chosen):
            check(row)


@given(seed=st.integers(0, 2**31))
def test_paths_are_drawn_with_probabilities(seed: int) -> None:
    torch.manual_seed(seed)
    strategy = DifferentiableStrategy()
    strategy.mutate_model(DartsSpace(channels=1, cells=3, nodes=1, operations=['skip_connect', 'none', 'max_pool_3x3']))
    for table in UniformPolicy(strategy.architecture).probabilities().values():
        check(torch.tensor(list(table.values())))


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ([-0.1, -0.2, -0.05], [0.0, 0.0, 1.0]),
        ([-0.1, -0.1, -0.3], [1.0, 0.0, 0.0]),
        ([0.0, 0.0], [1.0, 0.0]),
        ([0.3, -0.1, 0.1], [0.75, 0.0, 0.25]),
        ([0.5, 0.5], [0.5, 0.5]),
    ],
)
def test_onto_simplex(row: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(onto_simplex(torch.tensor(row)), torch.tensor(expected))
    assert project(row) == pytest.approx(expected)


def test_the_gradient_through_the_simplex_is_a_number() -> None:
    row = torch.tensor([-0.1, -0.2, -0.05], requires_grad=True)
    (gradient,) = torch.autograd.grad(onto_simplex(row)[0], row)
    assert torch.equal(gradient, torch.zeros(3))


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('random_start', [True, False])
@pytest.mark.parametrize('epsilon', [0.03, 0.3])
def test_the_attack_is_the_authors(epsilon: float, random_start: bool, seed: int) -> None:
    """Steps of 2·ε / 7 from a random start (or the centre), on a loss that couples all rows."""
    torch.manual_seed(seed)
    alpha = torch.randn(4, 5, dtype=torch.float64)
    left, right = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)

    def loss(table: Tensor) -> Tensor:
        return (table @ left - right).square().sum() + torch.sin(3 * table.sum(dim=0)).sum()

    relaxation = AdversarialSoftmax(epsilon, epsilon, random_start=random_start)
    architecture = _Rows(alpha)

    def searched() -> Tensor:
        return loss(torch.stack([relaxation.weights(str(row), alpha[row]) for row in range(4)]))

    centre = torch.softmax(alpha, 1)
    torch.manual_seed(100 + seed)
    offset = torch.stack([torch.empty(5, dtype=torch.float64).uniform_(-epsilon, epsilon) for _ in range(4)])
    torch.manual_seed(100 + seed)
    with relaxation.weight_step(architecture, searched, nn.Identity(), 0.0):
        found = torch.stack([relaxation.weights(str(row), alpha[row]) for row in range(4)])
    expected = linf_pgd(loss, centre, epsilon, 7, offset if random_start else None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


class _Rows(Table):
    def alpha(self, label: str) -> Tensor:
        return self._alpha[int(label)]

    def operations(self) -> dict[str, None]:
        return {str(row): None for row in range(len(self._alpha))}
