"""Every strategy finds a cell within the limits of its recipe; what is impossible is one sentence before anything starts."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nni_darts.errors import InputError
from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.costs import CostTable
from nni_darts.genotypes.neighbours import Choices
from nni_darts.genotypes.program import Program
from nni_darts.recipes import Recipe
from nni_darts.runs.cells import cells_to_train, on_data
from nni_darts.runs.cost_limits import check_possible, program_of
from nni_darts.runs.costs import cost_of
from nni_darts.runs.tasks import task_of
from tests.helpers import running, tiny
from tests.helpers.hub import HUB, of_the_hub

STRATEGIES = (
    *('darts-1st', 'fixed-alpha', 'gdas', 'snas', 'reinmax', 'proxyless', 'pc-darts', 'sgas', 'p-darts', 'enas', 'random-ws'),
    *('darts-pt', 'sgas+pt', 'darts-1st+shapley', 'random', 'evolution'),
)


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def limited(images: Path, **limits: Any) -> Recipe:
    changes = {**tiny.overrides(images), **tiny.SMALL, 'space.channels': 4}
    return Recipe.load('digits', {**changes, **{f'limits.{name}': value for name, value in limits.items()}})


def tight(images: Path, portion: float = 0.08) -> tuple[Recipe, dict[str, float]]:
    """Returns a recipe whose limits are a little above the smallest costs."""
    whole = limited(images, parameters='1G')
    data = task_of(whole).shape(whole)
    program = program_of(whole, data)
    assert program is not None
    limits = {}
    for measure in ('parameters', 'multiply_adds'):
        cells = [whole.space.random_cell(random.Random(seed)) for seed in range(50)]
        costs = [program.table.of(program.choices, whole.space.sample_of(cell))[measure] for cell in cells]
        least = program.cheapest(measure)
        limits[measure] = int(least + portion * (max(costs) - least))
    return limited(images, **limits), limits


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_every_strategy_finds_a_cell_within_the_limits(strategy: str, images: Path, tmp_path: Path) -> None:
    recipe, limits = tight(images)
    _, result = running.search(recipe, strategy, 1, tmp_path / 'out')
    assert all(0 < result[measure] <= limit for measure, limit in limits.items())
    cells = [json.loads(line)['genotype'] for line in lines_of(tmp_path / 'out' / 'metrics.jsonl')]
    cells += [json.loads(line) for line in lines_of(tmp_path / 'out' / 'magnitude.json')]
    for cell in cells:  # those that the page shows after each epoch, too
        costs = cost_of(Genotype.from_dict(cell), recipe, task_of(recipe).shape(recipe))
        assert all(costs[measure] <= limit for measure, limit in limits.items())


def test_60_drawn_and_60_mutated_cells_are_within_the_limits_and_differ(images: Path) -> None:
    recipe, limits = tight(images)
    space, rng, data = on_data(recipe).space, random.Random(1), task_of(recipe).shape(recipe)
    cells = [space.random_cell(rng) for _ in range(60)]
    cells += [space.mutated_cell(cell, rng) for cell in cells]
    assert len({cell.code() for cell in cells}) > 30
    assert all(map(space.holds, cells))
    for cell in rng.sample(cells, 20):
        costs = cost_of(cell, recipe, data)
        assert all(costs[measure] <= limit for measure, limit in limits.items())


def test_cells_are_found_where_only_one_is_within_the_limit(images: Path) -> None:
    whole = limited(images, parameters='1G')
    program = program_of(whole, task_of(whole).shape(whole))
    assert program is not None
    least = int(program.cheapest('parameters'))
    recipe = limited(images, parameters=least)
    assert {cost_of(cell, recipe, task_of(recipe).shape(recipe))['parameters'] for cell in cells_to_train(recipe, 'random', 1, {})} == {
        least
    }
    message = f'limits.parameters is {least - 1:,}, and any network of darts at the size of retrain has at least {least:,} parameters'
    for strategy in ('darts-1st', 'random', 'p-darts', 'enas'):
        with pytest.raises(InputError, match=message):
            running.search(limited(images, parameters=least - 1), strategy, 1, Path('/nonexistent'))


def test_limits_that_exclude_each_other_are_named_together(images: Path) -> None:
    recipe = limited(images, parameters=14, multiply_adds=14)
    amounts = {'small': {'parameters': 1, 'multiply_adds': 9}, 'quick': {'parameters': 9, 'multiply_adds': 1}}
    program = Program(Choices({'a': ('small', 'quick')}), CostTable({'parameters': 10, 'multiply_adds': 10}, {'a': amounts}), {})
    with pytest.raises(InputError, match='at once, .*smallest possible: 11 parameters, 11 multiply-adds.; raise one'):
        check_possible(replace(program, limits={'parameters': 14, 'multiply_adds': 14}), recipe)
    check_possible(replace(program, limits={'parameters': 19, 'multiply_adds': 14}), recipe)


def test_cells_of_a_space_whose_costs_do_not_add_up_are_counted_one_by_one() -> None:
    settings = HUB['AutoFormer']
    limited = {'search.random_samples': 4, 'limits.parameters': 12_000}
    recipe = of_the_hub('AutoFormer', settings, **limited)
    data = task_of(recipe).shape(recipe)
    cells = cells_to_train(recipe, 'random', 1, {})
    assert len(cells) == 4 and all(cost_of(cell, recipe, data)['parameters'] <= 12_000 for cell in cells)
    with pytest.raises(InputError, match='do not add up: .*; in such a space, only strategies that train cells one by one, such as random'):
        program_of(recipe, data)
    with pytest.raises(InputError, match='none of 100 random networks of .*AutoFormer keeps them; the smallest of ten have'):
        cells_to_train(of_the_hub('AutoFormer', settings, **{'limits.parameters': 100}), 'random', 1, {})


def test_recurrent_cells_all_cost_the_same(tmp_path: Path) -> None:
    text = tiny.text_overrides(tiny.write_text(tmp_path))
    recipe = Recipe.load('pydoc', {**text, 'limits.parameters': '1M'})
    data = task_of(recipe).shape(recipe)
    program = program_of(recipe, data)
    assert program is not None
    least = int(program.cheapest('parameters'))
    assert least == cost_of(recipe.space.random_cell(random.Random(1)), recipe, data)['parameters']
    with pytest.raises(InputError, match=f'any network of recurrent at the size of retrain has at least {least:,} parameters'):
        program_of(Recipe.load('pydoc', {**text, 'limits.parameters': least - 1}), data)
