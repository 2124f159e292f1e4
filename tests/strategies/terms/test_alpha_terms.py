"""Terms of the loss of α against their equations, written out with numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import FirstOrder, SecondOrder
from nni_darts.strategies.architecture import Architecture, OperationDecision
from nni_darts.strategies.moment import Moment
from nni_darts.strategies.registry import find
from nni_darts.strategies.relaxations import Sigmoid, Softmax
from nni_darts.strategies.terms import TERMS, created_terms
from nni_darts.strategies.terms.base import Term
from nni_darts.strategies.terms.beta import Beta
from nni_darts.strategies.terms.kl import Kl, divergence_from_uniform
from nni_darts.strategies.terms.zero_one import ZeroOne
from tests.helpers.fitting import fit
from tests.helpers.spaces import TwoLabels
from tests.reference.terms import beta_term, uniform_divergence, zero_one_term

TABLES = [[0.3, -1.2, 2.0], [0.0, 0.5, -0.4, 1.1], [-3.0, 3.0]]
LAST = Moment(1, 2)
"""Half of the search is over, and it is the last epoch."""


def architecture(tables: list[list[float]] = TABLES) -> Architecture:
    made = Architecture()
    for number, table in enumerate(tables):
        made.declare(f'e{number}', OperationDecision(tuple(range(len(table)))))
        made.alpha(f'e{number}').data = torch.tensor(table, dtype=torch.float64)
    return made


def with_gradient(term: Term, made: Architecture, relaxation: Any, moment: Moment = LAST) -> tuple[float, list[Tensor]]:
    """The value that a term adds to a loss, and its gradient."""
    loss = term.on_loss(torch.zeros((), dtype=torch.float64), made, relaxation, moment)
    return float(loss), list(torch.autograd.grad(loss, made.arch_parameters(), allow_unused=True))


def close(found: tuple[float, list[Tensor]], expected: tuple[float, list[list[float]]]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    for gradient, row in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(gradient, torch.tensor(row, dtype=torch.float64), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(('epoch', 'epochs', 'factor'), [(0, 10, 0.0), (1, 2, 0.5), (9, 10, 0.9), (12, 10, 1.0)])
def test_beta_is_the_growing_mean_logsumexp(epoch: int, epochs: int, factor: float) -> None:
    found = with_gradient(Beta(50.0), architecture(), Softmax(), Moment(epoch, epochs))
    close(found, beta_term(TABLES, 50.0 * factor))


def test_beta_takes_most_from_the_most_probable_operation() -> None:
    """Under plain SGD the α of an edge lose η·λ / edges together."""
    made = architecture()
    _, gradients = with_gradient(Beta(8.0), made, Softmax())
    for gradient, alpha in zip(gradients, made.arch_parameters()):
        assert float(gradient.sum()) == pytest.approx(4.0 / 3, rel=1e-12)
        assert int(gradient.argmax()) == int(alpha.argmax())


@pytest.mark.parametrize('power', [1, 2])
def test_zero_one_is_the_negative_mean_distance_from_one_half(power: int) -> None:
    tables = [[0.3, -1.2, 2.0], [0.01, 0.5, -0.4, 1.1]]
    close(with_gradient(ZeroOne(10.0, power), architecture(tables), Sigmoid()), zero_one_term(tables, 10.0, power))


def test_zero_one_of_two_published_tables_has_the_published_gradient() -> None:
    """∂L01/∂α = −2(σ − ½)σ(1 − σ) / 196 for 2·14·7 entries, and 0 where all α are 0."""
    torch.manual_seed(0)
    tables = torch.randn(28, 7, dtype=torch.float64)
    _, gradients = with_gradient(ZeroOne(1.0), architecture(tables.tolist()), Sigmoid())
    s = torch.sigmoid(tables)
    torch.testing.assert_close(torch.stack(gradients), -2 * (s - 0.5) * s * (1 - s) / 196, rtol=1e-12, atol=0)
    _, still = with_gradient(ZeroOne(1.0), architecture([[0.0] * 7] * 28), Sigmoid())
    assert all(not gradient.any() for gradient in still)


def test_zero_one_takes_the_probabilities_of_the_relaxation() -> None:
    value, _ = with_gradient(ZeroOne(1.0), architecture([[0.0, 0.0]]), Softmax())
    assert value == 0.0
    value, _ = with_gradient(ZeroOne(1.0), architecture([[30.0, -30.0]]), Softmax())
    assert value == pytest.approx(-0.25)


@pytest.mark.parametrize('concentration', [[1.0, 1.0, 1.0], [0.4, 2.5, 1.0, 3.0], [5.0, 0.7]])
def test_the_divergence_is_torchs_and_its_definitions(concentration: list[float]) -> None:
    beta = torch.tensor(concentration, dtype=torch.float64)
    distribution = torch.distributions.Dirichlet(beta)
    expected = torch.distributions.kl_divergence(distribution, torch.distributions.Dirichlet(torch.ones_like(beta)))
    assert float(divergence_from_uniform(beta)) == pytest.approx(float(expected), rel=1e-12, abs=1e-14)
    torch.manual_seed(0)
    sampled = uniform_divergence(concentration, distribution.sample((40_000,)).clamp(min=1e-300).tolist())
    assert float(divergence_from_uniform(beta)) == pytest.approx(sampled, abs=0.02)


def test_kl_is_summed_choice_by_choice() -> None:
    """Not one Dirichlet over all edges concatenated."""
    value, _ = with_gradient(Kl(0.5), architecture(), Softmax())
    betas = [nn.functional.elu(torch.tensor(table, dtype=torch.float64)) + 1 for table in TABLES]
    assert value == pytest.approx(0.5 * sum(float(divergence_from_uniform(beta)) for beta in betas), rel=1e-12)
    assert value != pytest.approx(0.5 * float(divergence_from_uniform(torch.cat(betas))), rel=1e-2)
    value, gradients = with_gradient(Kl(), architecture([[0.0, 0.0, 0.0]]), Softmax())
    assert value == pytest.approx(0.0, abs=1e-15) and not gradients[0].abs().max() > 1e-15


@pytest.mark.parametrize('name', TERMS)
def test_decided_choices_do_not_count(name: str) -> None:
    (term,) = created_terms([name])
    if not TERMS[name].of_alpha:
        pytest.skip('it is no term of the loss of α')
    whole, rest = architecture(), architecture(TABLES[1:])
    whole.state.fixed['e0'] = 2
    value, gradients = with_gradient(term, whole, Sigmoid())
    expected, of_rest = with_gradient(term, rest, Sigmoid())
    assert value == pytest.approx(expected) and gradients[0] is None
    assert all(map(torch.equal, gradients[1:], of_rest))


class Linear(Term):
    """Adds 3·Σ α."""

    def value(self, architecture: Architecture, relaxation: Any, moment: Moment) -> Tensor:
        return 3 * sum(alpha.sum() for alpha in architecture.arch_parameters())


def loaders() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    sets = [TensorDataset(torch.randn(8, 6, generator=generator, dtype=torch.float64), torch.arange(8) % 2) for _ in 'tv']
    return tuple(DataLoader(data, batch_size=4) for data in sets)


@pytest.mark.parametrize('architect', [FirstOrder(), SecondOrder(), SecondOrder('exact')], ids=['first', 'second', 'exact'])
def test_every_architect_differentiates_a_term(architect: Any) -> None:
    """The gradient of α with a term is that without it plus the term's own."""
    found = []
    for terms in ([], [Linear()]):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            space = TwoLabels()
            space(torch.zeros(2, 6))
            strategy = DifferentiableStrategy(architect=architect, learning_rate=0.0)
            module = fit(strategy, space, loaders(), epochs=1, classes=2)
            strategy.terms = terms
            batch = next(iter(loaders()[0]))
            found.append(architect.gradients(module, batch, batch, 0, [1.0, 1.0]))
        finally:
            torch.set_default_dtype(torch.float32)
    for plain, more in zip(*found, strict=True):
        torch.testing.assert_close(more, plain + 3, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ('value', 'said'),
    [
        ([[]], r'regularise has no term \[\]; it has beta, '),
        (['bet'], r"regularise has no term 'bet' \(did you mean 'beta'\?\); it has beta, "),
        (['beta', 'beta'], "regularise names the term 'beta' twice"),
        ({'beta': {'wieght': 1.0}}, "regularise: beta has no setting 'wieght'; it has weight"),
        ({'beta': 3.0}, 'regularise: the settings of beta must be a mapping of weight, not 3.0'),
        ({'zero-one': {'power': 3}}, 'regularise: zero-one: power must be a whole number from 1 to 2, not 3'),
        ('beta', 'regularise must be a list of terms'),
        (3, 'regularise must be a list of terms'),
    ],
)
def test_wrong_terms_are_refused_in_one_sentence(value: Any, said: str) -> None:
    for way in (find('darts-1st').check, lambda settings: find('darts-1st').build(settings, None)):
        with pytest.raises(ValueError, match=said):
            way({'regularise': value})


def test_terms_take_settings_in_a_list_and_in_a_mapping() -> None:
    for value in (['kl', {'beta': {'weight': 7.0}}], {'kl': None, 'beta': {'weight': 7.0}}):
        kl, beta = created_terms(value)
        assert (type(kl), kl.weight, type(beta), beta.weight) == (Kl, 1e-3, Beta, 7.0)


@pytest.mark.parametrize('name', ['fixed-alpha', 'random-ws', 'enas'])
def test_terms_of_alpha_need_an_alpha_that_gradients_train(name: str) -> None:
    for way in (find(name).check, lambda settings: find(name).build(settings, None)):
        with pytest.raises(ValueError, match='regularise: beta is a term of the loss of α, and this strategy does not train α'):
            way({'regularise': ['beta']})


def test_every_stage_of_p_darts_has_the_terms() -> None:
    strategy = create_strategy('p-darts', regularise=['beta'])
    assert [[type(term) for term in part.terms] for part in strategy.parts] == [[Beta]] * 3
