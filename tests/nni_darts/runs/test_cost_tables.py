"""The sum of what the candidates add equals the cost that ``nni-darts cost`` counts."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from nni_darts.genotypes.base import AnyGenotype
from nni_darts.genotypes.neighbours import Inputs
from nni_darts.recipes import Recipe
from nni_darts.runs.cost_tables import cost_table, inputs_apart
from nni_darts.runs.costs import cost_of
from nni_darts.runs.tasks import task_of
from tests.helpers import tiny
from tests.helpers.hub import HUB, of_the_hub


def check_sums(recipe: Recipe, count: int) -> None:
    data = task_of(recipe).shape(recipe)
    table, space = cost_table(recipe, data), recipe.space.on_data(lambda: task_of(recipe).facts(data))
    choices, rng, seen = space.choices(), random.Random(1), set()
    for _ in range(count):
        genotype: AnyGenotype = space.random_cell(rng)
        counted = cost_of(genotype, recipe, data)
        assert table.of(choices, space.sample_of(genotype)) == counted
        seen.add(counted['multiply_adds'])
    assert len(seen) > 2 or recipe.space.task == 'text'  # all recurrent cells of a size cost the same


def changed(**more: object) -> Recipe:
    return Recipe.load('digits', {'retrain.channels': 6, 'retrain.cells': 4, **more})


@pytest.mark.parametrize('count', [30, pytest.param(200, marks=pytest.mark.slow)])
def test_random_darts_cells(count: int) -> None:
    check_sums(changed(), count)


@pytest.mark.parametrize('count', [30, pytest.param(200, marks=pytest.mark.slow)])
def test_random_cells_of_nasbench201(count: int) -> None:
    settings = {
        'space.name': 'nasbench201',
        'space.cells': 3,
        'space.nodes': 4,
        'retrain.cells': 6,
        'retrain.drop_path': 0,
        'retrain.auxiliary_weight': 0,
    }
    check_sums(changed(**settings), count)


@pytest.mark.parametrize(
    'settings',
    [
        pytest.param({'space.name': 's1', 'space.nodes': 4}, id='s1'),
        pytest.param({'space.name': 's4', 'space.nodes': 4}, id='s4'),
        pytest.param({'space.stem': 'imagenet', 'data.name': 'cifar10'}, id='stem of ImageNet'),
        pytest.param({'retrain.pool_batch_norm': False, 'retrain.auxiliary_weight': 0.4}, id='pools without batch norm'),
        pytest.param(
            {'space.nodes': 3, 'space.operations': ['none', 'sep_conv_7x7', 'conv_7x1_1x7', 'skip_connect']}, id='other operations'
        ),
        pytest.param({'retrain.cells': 9}, id='nine cells'),
    ],
)
def test_random_cells_of_other_spaces_and_sizes(settings: dict[str, object]) -> None:
    check_sums(changed(**settings), 12)


def test_a_published_size() -> None:
    recipe = Recipe.load('cifar10')
    table = cost_table(recipe, task_of(recipe).shape(recipe))
    cell = recipe.space.random_cell(random.Random(5))
    assert table.of(recipe.space.choices(), recipe.space.sample_of(cell)) == cost_of(cell, recipe, task_of(recipe).shape(recipe))


def test_recurrent_cells(tmp_path: Path) -> None:
    check_sums(Recipe.load('pydoc', tiny.text_overrides(tiny.write_text(tmp_path))), 12)


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('MobileNetV3Space', {}),
        pytest.param('ProxylessNAS', {}, marks=pytest.mark.slow),
        pytest.param('ShuffleNetSpace', {'channel_search': False}, marks=pytest.mark.slow),
        pytest.param('ShuffleNetSpace', {}, marks=pytest.mark.slow),
    ],
)
def test_spaces_of_the_hub_whose_layers_share_choices(name: str, changes: dict[str, object]) -> None:
    check_sums(of_the_hub(name, {**HUB[name], **changes}), 4)


def test_the_table_is_for_the_settings_of_the_network_to_retrain() -> None:
    settings = {**HUB['MobileNetV3Space'], 'base_widths': [32, 32, 32, 32, 32, 64]}
    check_sums(of_the_hub('MobileNetV3Space', HUB['MobileNetV3Space'], **{'retrain.space': settings}), 4)


def test_one_sentence_says_that_the_costs_of_a_space_do_not_add_up() -> None:
    recipe = of_the_hub('AutoFormer', HUB['AutoFormer'])
    with pytest.raises(ValueError, match=r'the costs of the choices of nni\.nas.*AutoFormer do not add up: a network has .* and the sum'):
        cost_table(recipe, task_of(recipe).shape(recipe))


@pytest.mark.parametrize('chosen', [1, 2, 3, 4, None])
def test_the_costs_of_inputs_are_found_from_the_costs_of_whole_networks(chosen: int | None) -> None:
    each = {'a': 5, 'b': 11, 'c': 2, 'd': 7}

    def cost(sample: dict[str, list[str]]) -> dict[str, float]:
        return {'parameters': 100 + sum(each[value] for value in sample['inputs'])}

    found = inputs_apart('inputs', Inputs(tuple(each), chosen), {}, cost)
    for size in range(1, 5) if chosen is None else [chosen]:
        first = cost({'inputs': list(each)[:size]})['parameters'] - sum(
            found.get(value, {}).get('parameters', 0) for value in list(each)[:size]
        )
        for subset in itertools.combinations(each, size):
            assert (
                first + sum(found.get(value, {}).get('parameters', 0) for value in subset) == cost({'inputs': list(subset)})['parameters']
            )


def test_inputs_that_change_the_cost_of_each_other_are_refused() -> None:
    def cost(sample: dict[str, list[str]]) -> dict[str, float]:
        return {'parameters': len(sample['inputs']) ** 2}

    with pytest.raises(ValueError, match="the inputs of 'inputs' change the cost of each other"):
        inputs_apart('inputs', Inputs(('a', 'b', 'c'), None), {}, cost)
