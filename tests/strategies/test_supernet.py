from __future__ import annotations

import pytest
import torch
from torch import nn

from nni_darts import Genotype
from nni_darts._nni import InputChoice, LayerChoice, ModelSpace
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.supernet import MixedInputs, MixedOperation, SummedInputs
from tests.helpers.spaces import Nested, TwoLabels


def supernet(space: ModelSpace) -> tuple[DifferentiableStrategy, ModelSpace]:
    strategy = create_strategy('darts-1st')
    return strategy, strategy.mutate_model(space)


def test_darts_cells_carry_no_alpha_on_inputs() -> None:
    strategy, model = supernet(DartsSpace(channels=2, cells=4))
    assert strategy.architecture.labels() == [
        f'{kind}_op_{state}_{source}' for kind in ('normal', 'reduce') for state in range(2, 6) for source in range(state)
    ]
    assert all(alpha.shape == (8,) for alpha in strategy.arch_parameters())
    assert not any(isinstance(module, MixedInputs) for module in model.modules())
    assert sum(isinstance(module, SummedInputs) for module in model.modules()) == 16


def test_alpha_starts_small_and_is_no_weight() -> None:
    strategy, model = supernet(DartsSpace(channels=2, cells=3))
    alphas = torch.cat(list(strategy.arch_parameters()))
    assert 5e-4 < float(alphas.std()) < 2e-3
    identifiers = {id(parameter) for parameter in model.parameters()}
    assert not identifiers & {id(alpha) for alpha in strategy.arch_parameters()}


def test_the_supernet_has_the_names_of_the_space() -> None:
    space = DartsSpace(channels=2, cells=3, nodes=2)
    names = set(space.state_dict())
    assert set(supernet(space)[1].state_dict()) == names


def test_a_cell_is_the_sum_of_softmax_mixtures() -> None:
    strategy, model = supernet(DartsSpace(channels=2, cells=3, nodes=2).double())
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    cell = model.cells[0].eval()
    states = [torch.randn(2, 2, 6, 6).double() for _ in range(2)]
    expected = 0
    for source, edge in enumerate(cell.nodes[0].edges):
        weights = torch.softmax(strategy.architecture.alpha(f'normal_op_2_{source}'), 0)
        expected = expected + sum(weight * operation(states[source]) for weight, operation in zip(weights, edge.candidates()))
    torch.testing.assert_close(cell.nodes[0](states), expected)


@pytest.mark.parametrize(('reduction', 'total'), [('sum', 2.0), ('mean', 1.0), ('concat', 1.0), ('none', 1.0)])
def test_relaxed_and_frozen_inputs_agree_in_size(reduction: str, total: float) -> None:
    strategy, model = supernet(TwoLabels(reduction))
    nn.init.normal_(strategy.architecture.alpha('features'))
    ones = [torch.ones(2, 3)] * 3
    relaxed = model.inputs(ones)
    frozen = model.inputs.freeze({'features': [0, 2]})(ones)
    if reduction == 'none':
        assert isinstance(relaxed, list) and len(relaxed) == len(frozen) == 2
        relaxed, frozen = relaxed[0], frozen[0]
    assert relaxed.shape == frozen.shape
    torch.testing.assert_close(frozen, torch.full_like(frozen, total))
    torch.testing.assert_close(relaxed, frozen)


def test_a_decided_relaxation_computes_what_the_frozen_model_does() -> None:
    strategy, model = supernet(TwoLabels('concat'))
    images = torch.randn(4, 6)
    model(images)
    with torch.no_grad():
        strategy.architecture.alpha('layer').copy_(torch.tensor([-60.0, 60.0, -60.0]))
        strategy.architecture.alpha('features').copy_(torch.tensor([60.0, -60.0, 60.0]))
    sample = strategy.select()
    assert sample == {'layer': 1, 'features': [0, 2]}
    torch.testing.assert_close(model.freeze(sample)(images), model(images))


def test_freezing_a_supernet_keeps_its_weights() -> None:
    strategy, model = supernet(DartsSpace(channels=2, cells=3, nodes=2))
    sample = strategy.select()
    frozen = model.freeze(sample)
    assert not any(isinstance(module, (MixedOperation, SummedInputs)) for module in frozen.modules())
    genotype = Genotype.from_sample(sample)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for label, decision in strategy.architecture.operations().items():
            strategy.architecture.alpha(label).fill_(-80.0)[decision.names.index(sample[label])] = 80.0
    # Every edge is one operation now; the supernet still sums those that the genotype leaves out.
    cell, states = model.cells[0].eval(), [torch.randn(2, 2, 8, 8), torch.randn(2, 2, 8, 8)]
    torch.testing.assert_close(frozen.cells[0].eval().nodes[0](states), cell.nodes[0](states))
    assert frozen(images).shape == (2, 10)
    assert len(genotype.normal) == 4


def test_nested_choices_and_shared_labels() -> None:
    strategy, model = supernet(Nested())
    assert strategy.architecture.labels() == ['outer', 'inner']
    model(torch.randn(3, 4)).sum().backward()
    assert all(alpha.grad is not None for alpha in strategy.arch_parameters())
    frozen = model.freeze({'outer': 'nested', 'inner': 'b'})
    assert frozen(torch.randn(3, 4)).shape == (3, 2)
    assert not any(isinstance(module, MixedOperation) for module in frozen.modules())


def test_one_label_for_two_different_choices_is_an_error() -> None:
    class Mixed(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.a = LayerChoice([nn.Identity(), nn.Identity()], label='x')
            self.b = LayerChoice([nn.Identity()] * 3, label='x')

    with pytest.raises(ValueError, match="'x'"):
        supernet(Mixed())


def test_a_space_without_choices_is_an_error() -> None:
    class Fixed(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(1, 1)

    with pytest.raises(ValueError, match='no choices'):
        supernet(Fixed())


def test_a_choice_of_how_many_to_concatenate_cannot_be_relaxed() -> None:
    class Open(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.a = InputChoice(3, n_chosen=None, reduction='concat', label='x')

    with pytest.raises(ValueError, match='n_chosen'):
        supernet(Open())
