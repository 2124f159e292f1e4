from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nni_darts._nni import InputChoice, ModelSpace
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder, Joint
from nni_darts.strategies.exponentiated import LEAST, ExponentiatedGradient
from nni_darts.strategies.registry import find
from nni_darts.strategies.relaxations import PartialSimplex, Simplex
from tests.helpers.spaces import TwoLabels
from tests.reference.simplex import exponentiated


def stepped(theta: Tensor, gradient: Tensor, rate: float) -> Tensor:
    parameter = nn.Parameter(theta.clone())
    parameter.grad = gradient.clone()
    ExponentiatedGradient([parameter], rate).step()
    return parameter.detach()


def drawn(seed: int = 0, count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(count, generator=generator, dtype=torch.float64) + 0.1
    return theta / theta.sum(), torch.randn(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('rate', [0.01, 0.1, 3.0])
def test_a_step_is_the_softmax_of_the_moved_logarithm(rate: float) -> None:
    theta, gradient = drawn()
    torch.testing.assert_close(stepped(theta, gradient, rate), torch.softmax(theta.log() - rate * gradient, 0), rtol=1e-12, atol=0)


@pytest.mark.parametrize('rate', [0.1, 20.0])
def test_a_step_is_the_reference(rate: float) -> None:
    """With a large rate, entries are kept at the least probability."""
    theta, gradient = drawn(1)
    found, expected = stepped(theta, gradient, rate), exponentiated(theta.tolist(), gradient.tolist(), rate, LEAST)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)
    assert (float(found.min()) < 2 * LEAST) == (rate == 20.0)
    assert float(found.sum()) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize('constant', [-3.0, 1e4])
def test_a_constant_in_the_gradient_changes_nothing(constant: float) -> None:
    theta, gradient = drawn(2)
    torch.testing.assert_close(stepped(theta, gradient + constant, 0.3), stepped(theta, gradient, 0.3), rtol=1e-10, atol=0)


def test_a_vertex_stays_but_for_the_least_probability() -> None:
    vertex = torch.tensor([1.0 - 2 * LEAST, LEAST, LEAST], dtype=torch.float64)
    moved = stepped(vertex, torch.tensor([5.0, 5.0, 5.0], dtype=torch.float64), 0.1)
    torch.testing.assert_close(moved, vertex, rtol=1e-12, atol=0)
    assert float(stepped(vertex, torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), 0.1)[0]) > 1 - 3 * LEAST


def test_half_a_search_of_steps_never_leaves_the_simplex() -> None:
    theta, _ = drawn(3, 8)
    generator = torch.Generator().manual_seed(4)
    for _ in range(300):
        theta = stepped(theta.float(), 30 * torch.randn(8, generator=generator), 0.5)
        assert float(theta.min()) > 0 and float(theta.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('name', ['gaea-darts', 'gaea-pc-darts'])
def test_a_search_starts_uniform_and_mixes_by_alpha_itself(name: str) -> None:
    strategy = create_strategy(name, execution='plain')
    strategy.mutate_model(DartsSpace(4, 3, 3, nodes=2))
    architecture, relaxation = strategy.architecture, strategy.relaxation
    for label in architecture.labels():
        alpha = architecture.alpha(label)
        assert torch.equal(alpha, torch.full_like(alpha, 1 / alpha.numel()))
    label = next(iter(architecture.operations()))
    alpha = architecture.alpha(label)
    alpha.data = drawn(5, 8)[0]
    assert relaxation.weights(label, alpha) is alpha
    assert list(strategy.probabilities()[label].values()) == alpha.tolist()
    assert isinstance(relaxation.optimizer([alpha], strategy.optimizer_settings), ExponentiatedGradient)
    if isinstance(relaxation, PartialSimplex):
        (node, *_) = architecture.inputs()
        assert torch.equal(architecture.edge_weights(node), architecture.alpha(node)) and float(architecture.edge_weights(node).sum()) == 1


def test_inputs_have_the_probabilities_that_alpha_says() -> None:
    """One of n inputs: θ itself; two of three: in proportion to products of θ."""
    strategy = DifferentiableStrategy(Simplex(), FirstOrder())
    model = strategy.mutate_model(TwoLabels())
    theta = torch.tensor([0.2, 0.3, 0.5])
    strategy.architecture.alpha('features').data = theta
    products = {(i, j): float(theta[i] * theta[j]) for i in range(3) for j in range(i + 1, 3)}
    expected = [sum(value for pair, value in products.items() if index in pair) / sum(products.values()) for index in range(3)]
    output = model.inputs([torch.eye(3)[index] for index in range(3)])
    torch.testing.assert_close(output, torch.tensor(expected))
    assert strategy.select()['features'] == [1, 2]


class AnyNumber(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.inputs = InputChoice(n_candidates=3, n_chosen=None, reduction='sum', label='some')


def test_any_number_of_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="InputChoice 'some' takes any number of inputs"):
        DifferentiableStrategy(Simplex(), FirstOrder()).mutate_model(AnyNumber())


def test_the_optimizer_of_the_weights_must_not_move_it() -> None:
    with pytest.raises(ValueError, match='Simplex keeps α on a simplex; with Joint'):
        DifferentiableStrategy(Simplex(), Joint())


def test_settings_of_adam_and_terms_of_logits_are_refused() -> None:
    for settings, said in (
        ({'weight_decay': 0.1}, "gaea-darts has no setting 'weight_decay': exponentiated gradients have a learning rate only"),
        ({'betas': [0.5, 0.9]}, "no setting 'betas'"),
        ({'regularise': ['beta']}, r'regularise: beta takes the logsumexp of logits'),
        ({'regularise': ['kl']}, 'regularise: kl is defined for'),
    ):
        with pytest.raises(ValueError, match=said):
            find('gaea-darts').check(settings)
    with pytest.raises(ValueError, match='regularise: beta takes the logsumexp'):
        DifferentiableStrategy(Simplex(), regularise=['beta'])


def test_a_recipes_learning_rate_for_adam_does_not_replace_the_published_one() -> None:
    (rate,) = [entry for entry in find('gaea-darts').settings() if entry.name == 'learning_rate']
    assert (rate.default, rate.recipe) == (0.1, '')
    assert create_strategy('gaea-darts').optimizer_settings['lr'] == 0.1
    assert create_strategy('gaea-darts', learning_rate=0.5).optimizer_settings['lr'] == 0.5
