from __future__ import annotations

import random

import pytest
import torch

from nni_darts import Genotype
from nni_darts.genotypes.candidates import REDUCED, edge_candidates
from nni_darts.recipes import Recipe
from nni_darts.search_spaces import S1, S2, S3, S4, S5, network_from_genotype
from nni_darts.search_spaces.operations import create_operation
from nni_darts.strategies import create_strategy

SPACES = {'s1': S1, 's2': S2, 's3': S3, 's4': S4, 's5': S5}
SMALL = {'channels': 2, 'cells': 4, 'num_classes': 3}


@pytest.mark.parametrize('name', SPACES)
def test_every_edge_has_its_own_operations(name: str) -> None:
    labels = SPACES[name](**SMALL).simplify()
    for kind in ('normal', 'reduce'):
        edges = [labels[f'{kind}_op_{state}_{source}'].values for state in range(2, 6) for source in range(state)]
        assert list(map(tuple, edges)) == list(REDUCED[name][kind])


def test_s1_is_the_published_table() -> None:
    assert REDUCED['s1']['normal'][0] == ('skip_connect', 'dil_conv_3x3')
    assert REDUCED['s1']['normal'][5] == ('max_pool_3x3', 'skip_connect')
    assert REDUCED['s1']['reduce'][0] == ('max_pool_3x3', 'avg_pool_3x3')
    assert REDUCED['s1']['reduce'][13] == ('skip_connect', 'dil_conv_5x5')
    assert all(len(set(edge)) == 2 for edges in REDUCED['s1'].values() for edge in edges)


@pytest.mark.parametrize('name', SPACES)
def test_a_search_ends_in_the_space_and_its_cell_survives_every_format(name: str) -> None:
    """Trap: an index into one global list of operations where each edge has its own (S1)."""
    space = SPACES[name](**SMALL)
    strategy = create_strategy('darts-1st')
    model = strategy.mutate_model(space)
    for alpha in strategy.arch_parameters():
        torch.nn.init.normal_(alpha)
    sample = strategy.select()
    genotype = Genotype.from_sample(sample)
    for kind in ('normal', 'reduce'):
        edges = iter(REDUCED[name][kind])
        table = {(state, source): next(edges) for state in range(2, 6) for source in range(state)}
        for state, pair in enumerate(genotype.node_edges(kind), start=2):
            assert all(operation in table[state, source] and operation != 'none' for operation, source in pair)
    assert Genotype.from_code(genotype.code()) == genotype
    assert Genotype.from_sample(genotype.to_sample(REDUCED[name])) == genotype
    frozen = model.freeze(sample).eval()
    network = network_from_genotype(genotype, **SMALL)
    network.load_state_dict(frozen.state_dict())
    images = torch.randn(2, 3, 8, 8)
    torch.manual_seed(1)
    expected = network.eval()(images)
    torch.manual_seed(1)
    assert torch.equal(frozen(images), expected)


def test_noise_is_fresh_and_blind() -> None:
    noise = create_operation('noise', 4, 2, affine=True)
    images = torch.full((64, 4, 9, 9), 7.0)
    first, second = noise(images), noise(images)
    assert first.shape == (64, 4, 5, 5) and not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.1 and abs(float(first.std()) - 1) < 0.1


@pytest.mark.parametrize('name', SPACES)
def test_random_cells_stay_in_the_space(name: str) -> None:
    rng = random.Random(0)
    for _ in range(50):
        genotype = Genotype.random(rng, operations=REDUCED[name])
        genotype.to_sample(REDUCED[name])
        assert Genotype.from_code(genotype.code()) == genotype


@pytest.mark.parametrize('name', SPACES)
def test_recipes_name_the_space(name: str) -> None:
    recipe = Recipe.load('digits', {'space.name': name, 'space.nodes': 4})
    assert recipe.space.candidates == REDUCED[name]
    with pytest.raises(ValueError, match='set nodes to 4'):
        Recipe.load('digits', {'space.name': name, 'space.nodes': 3})


@pytest.mark.parametrize(
    ('table', 'names'),
    [
        ({'normal': [['none', 'skip_connect']] * 5}, 'normal and reduce'),
        ({'normal': [['none', 'skip_connect']] * 5, 'reduce': [['none', 'skip_connect']] * 4}, '5 edges'),
        ({'normal': [['none']] * 5, 'reduce': [['none', 'skip_connect']] * 5}, "besides 'none'"),
        ({'normal': [['conv']] * 5, 'reduce': [['none', 'skip_connect']] * 5}, "'conv'"),
    ],
)
def test_wrong_tables(table: dict, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        edge_candidates(table, 2)
