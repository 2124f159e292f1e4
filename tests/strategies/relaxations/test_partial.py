from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from nni_darts import Genotype
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS
from nni_darts.search_spaces import DartsSpace, NasBench201Space
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.relaxations import PartialChannels, Relaxation, Softmax
from tests.reference.selection import masked_forward


def supernet(relaxation: Relaxation, channels: int = 4, **options: int) -> tuple[DifferentiableStrategy, nn.Module]:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation, execution='plain')
    model = strategy.mutate_model(DartsSpace(channels, 3, 4, 1, **{'nodes': 2, **options})).double()
    strategy.architecture.double()
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    return strategy, model


def images(size: int = 8) -> Tensor:
    return torch.randn(4, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_one_part_without_edge_weights_is_plain_darts() -> None:
    plain, plain_model = supernet(Softmax())
    partial, model = supernet(PartialChannels(1, edge_weights=False))
    model.load_state_dict(plain_model.state_dict())
    partial.architecture.load_state_dict(plain.architecture.state_dict())
    assert torch.equal(model(images()), plain_model(images()))
    gradients = [
        torch.autograd.grad(net(images()).square().sum(), s.arch_parameters()) for s, net in ((plain, plain_model), (partial, model))
    ]
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize('size', [8, 7])
@pytest.mark.parametrize('portion', [1, 2, 4])
def test_forward_against_the_reference(portion: int, size: int) -> None:
    strategy, model = supernet(PartialChannels(portion), channels=8)
    assert torch.allclose(model(images(size)), masked_forward(model, strategy.architecture, images(size), None, portion), rtol=1e-12)


def test_only_a_part_of_the_channels_has_candidates() -> None:
    _, model = supernet(PartialChannels(4), channels=8)
    convolutions = [module for module in model.cells[0].nodes[0].edges[0].modules() if isinstance(module, nn.Conv2d)]
    assert convolutions and all(module.in_channels == module.out_channels == 2 for module in convolutions)
    assert {module.groups for module in convolutions} == {1, 2}


def test_edges_have_a_weight_each_that_is_trained() -> None:
    strategy, model = supernet(PartialChannels(2))
    betas = {label: strategy.architecture.alpha(label) for label in strategy.architecture.inputs()}
    assert {label: len(beta) for label, beta in betas.items()} == {
        'normal_input_2': 2,
        'normal_input_3': 3,
        'reduce_input_2': 2,
        'reduce_input_3': 3,
    }
    model(images()).square().sum().backward()
    assert all(beta.grad.abs().sum() > 0 for beta in betas.values())


@pytest.mark.parametrize('seed', range(10))
def test_cells_are_derived_from_the_product(seed: int) -> None:
    """The pair of edges and operations with the largest sum of β·p among all that avoid ``none``."""
    strategy, _ = supernet(PartialChannels(2), nodes=4)
    torch.manual_seed(seed)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha, std=2.0)
    architecture = strategy.architecture
    genotype = Genotype.from_sample(strategy.select())
    for kind in ('normal', 'reduce'):
        for state, edges in enumerate(genotype.node_edges(kind), start=2):
            beta = torch.softmax(architecture.alpha(f'{kind}_input_{state}'), 0)
            tables = [beta[s] * torch.softmax(architecture.alpha(f'{kind}_op_{state}_{s}'), 0) for s in range(state)]
            options = itertools.product(itertools.combinations(range(state), 2), range(1, 8), range(1, 8))
            best = max(options, key=lambda option: float(tables[option[0][0]][option[1]] + tables[option[0][1]][option[2]]))
            assert set(edges) == {(DARTS_OPERATIONS[best[1]], best[0][0]), (DARTS_OPERATIONS[best[2]], best[0][1])}


def test_a_frozen_model_has_all_channels() -> None:
    strategy, model = supernet(PartialChannels(2))
    frozen = model.freeze(strategy.select()).double()
    assert frozen(images()).shape == (4, 4)
    widths = {module.in_channels for module in frozen.cells[0].nodes.modules() if isinstance(module, nn.Conv2d)}
    assert widths == {4}


def test_other_spaces() -> None:
    strategy = create_strategy('pc-darts', portion=2)
    model = strategy.mutate_model(NasBench201Space(4, 3, 4, 1))
    assert model(images().float()).shape == (4, 4)
    assert len(strategy.arch_parameters()) == 6


def test_what_cannot_be_narrowed() -> None:
    with pytest.raises(ValueError, match='cannot be divided by 4'):
        create_strategy('pc-darts').mutate_model(DartsSpace(channels=6, cells=3, nodes=1))
    from tests.helpers.spaces import TwoLabels

    with pytest.raises(ValueError, match='only operations made of Conv2d and BatchNorm2d'):
        create_strategy('pc-darts').mutate_model(TwoLabels())
    with pytest.raises(ValueError, match='portion'):
        PartialChannels(0)
