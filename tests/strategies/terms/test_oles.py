"""OLES: its cosines, its decisions, and that frozen weights do not move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader, LayerChoice, ModelSpace
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import FirstOrder, SecondOrder
from nni_darts.strategies.moment import Moment
from nni_darts.strategies.supernet import MixedOperation
from nni_darts.strategies.terms.base import Step
from nni_darts.strategies.terms.oles import Oles
from tests.helpers.fitting import fit
from tests.reference.oles import mean_cosine


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Search:
    """A supernet with its steps by hand: training and validation loss are on different images."""

    def __init__(self, term: Oles, **optimizer: Any) -> None:
        torch.manual_seed(0)
        self.strategy = DifferentiableStrategy(architect=FirstOrder(), execution='plain')
        self.model = self.strategy.mutate_model(DartsSpace(2, 3, 3, 2, 1)).double()
        self.strategy.architecture.double()
        self.term = term
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, **optimizer)
        term.begin(self.strategy.architecture, self.model, self.optimizer)
        self.train, self.valid = ((drawn(6, 2, 6, 6, seed=seed), torch.arange(6) % 3) for seed in (1, 2))

    def loss(self, data: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(self.model(data[0]), data[1])

    def step(self, moves: bool = True) -> None:
        architecture, relaxation = self.strategy.architecture, self.strategy.relaxation
        losses = (lambda: self.loss(self.train)), (lambda: self.loss(self.valid))
        step = Step(architecture, relaxation, self.model, self.optimizer, Moment(0, 2), moves, *losses)
        self.term.before(step)
        with self.term.around(step):
            self.optimizer.zero_grad()
            self.loss(self.train).backward()
            self.term.gradient(step)
            self.optimizer.step()

    def operations(self) -> dict[str, nn.Module]:
        choices = {name: module for name, module in self.model.named_modules() if isinstance(module, MixedOperation)}
        found = {f'{name}.{operation}': getattr(choice, operation) for name, choice in choices.items() for operation in choice.names}
        return {name: module for name, module in found.items() if list(module.parameters())}


@pytest.mark.parametrize('gradient', ['summed', 'validation'])
def test_the_score_is_the_cosine_of_kept_and_present_gradient(gradient: Any) -> None:
    search = Search(Oles(-1.0, 50, gradient))
    search.step()
    modules = search.operations()
    kept = {name: [weight.grad.clone() for weight in module.parameters()] for name, module in modules.items()}
    weights = {name: list(module.parameters()) for name, module in modules.items()}
    flat = [weight for part in weights.values() for weight in part]
    of_validation = dict(zip(flat, torch.autograd.grad(search.loss(search.valid), flat)))
    search.step()
    sums = search.strategy.architecture.state.memory['oles']['sums']
    assert sums.keys() == modules.keys()
    for name, part in weights.items():
        fresh = [of_validation[weight] for weight in part]
        other = [a + b for a, b in zip(kept[name], fresh)] if gradient == 'summed' else fresh
        assert sums[name] == pytest.approx(mean_cosine(kept[name], other), rel=1e-9, abs=1e-12)
    assert gradient == 'validation' or any(value < 0.999 for value in sums.values())  # the kept gradient is no alias of the present one


def test_a_mean_is_over_exactly_so_many_cosines() -> None:
    search = Search(Oles(-1.0, 3))
    counts = []
    for _ in range(8):
        search.step()
        counts.append(next(iter(search.strategy.architecture.state.memory['oles']['counts'].values()), 0))
    assert counts == [0, 1, 2, 0, 1, 2, 0, 1]


def test_nothing_is_compared_while_alpha_is_fixed_or_at_the_start_of_an_epoch() -> None:
    search = Search(Oles(1.0, 1))
    search.step(moves=False)
    search.step(moves=False)
    search.term.begin_epoch(Moment(1, 2))
    search.step()
    memory = search.strategy.architecture.state.memory['oles']
    assert memory == {'frozen': [], 'sums': {}, 'counts': {}}


@pytest.mark.parametrize('optimizer', [{}, {'momentum': 0.9, 'weight_decay': 0.1}], ids=['plain', 'momentum and weight decay'])
def test_frozen_weights_stay_as_they_are_to_the_bit(optimizer: dict[str, float]) -> None:
    """No operation's mean cosine reaches the threshold, so all are frozen; all other weights go on."""
    search = Search(Oles(1.0, 2, 'validation'), **optimizer)
    for _ in range(3):
        search.step()
    memory = search.strategy.architecture.state.memory['oles']
    assert set(memory['frozen']) == set(search.operations())
    frozen = {id(weight) for module in search.operations().values() for weight in module.parameters()}
    before = {name: weight.detach().clone() for name, weight in search.model.named_parameters()}
    for _ in range(3):
        search.step()
    for name, weight in search.model.named_parameters():
        assert torch.equal(weight, before[name]) == (id(weight) in frozen), name


def test_a_resumed_search_freezes_them_again() -> None:
    search = Search(Oles(1.0, 1, 'validation'))
    search.step()
    search.step()
    again = Search(Oles(1.0, 1))
    again.strategy.architecture.load_state_dict(search.strategy.architecture.state_dict())
    again.term.begin(again.strategy.architecture, again.model, again.optimizer)
    assert again.strategy.architecture.state.memory['oles']['frozen']
    assert all(not weight.requires_grad for module in again.operations().values() for weight in module.parameters())


def searched(architect: Any, regularise: Any) -> tuple[list[Tensor], DifferentiableStrategy]:
    torch.manual_seed(0)
    sets = [TensorDataset(drawn(12, 2, 6, 6, seed=seed), torch.arange(12) % 3) for seed in (1, 2)]
    strategy = DifferentiableStrategy(architect=architect, regularise=regularise, learning_rate=0.1)
    module = fit(strategy, DartsSpace(2, 3, 3, 2, 1), tuple(DataLoader(data, batch_size=4) for data in sets), epochs=2, classes=3)
    return [*module.model.state_dict().values(), *strategy.arch_parameters()], strategy


@pytest.mark.parametrize('architect', [FirstOrder(), SecondOrder()], ids=['first', 'second'])
def test_with_nothing_frozen_a_search_is_that_without_the_term(architect: Any) -> None:
    plain, _ = searched(architect, [])
    watched, strategy = searched(architect, {'oles': {'threshold': -1.0}})
    assert all(map(torch.equal, plain, watched))
    assert any(strategy.architecture.state.memory['oles']['counts'].values())


def test_a_whole_search_freezes_and_ends() -> None:
    plain, _ = searched(SecondOrder(), [])
    found, strategy = searched(SecondOrder(), {'oles': {'threshold': 1.0, 'steps': 1, 'gradient': 'validation'}})
    assert strategy.architecture.state.memory['oles']['frozen'] and not all(map(torch.equal, plain, found))
    assert all(value.isfinite().all() for value in found)


class WithoutWeights(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.activation = LayerChoice([nn.ReLU(), nn.Tanh()], label='activation')


def test_a_space_whose_operations_have_no_weights_is_refused() -> None:
    with pytest.raises(ValueError, match='oles freezes the weights of candidate operations, and no operation of this space has'):
        DifferentiableStrategy(regularise=['oles']).mutate_model(WithoutWeights())
    with pytest.raises(ValueError, match='skips counts the operation skip_connect, and no choice of this space has it'):
        DifferentiableStrategy(early_stopping={'skips': 2}).mutate_model(WithoutWeights())
