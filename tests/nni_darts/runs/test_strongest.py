"""Other cells are read from the α of a finished search, by the command ``derive`` without a selection."""

from __future__ import annotations

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from PIL import Image

from nni_darts.cli import main
from nni_darts.genotypes.convolutional import Genotype
from nni_darts.recipes import Recipe
from nni_darts.runs.costs import cost_of
from nni_darts.runs.strongest import Searched
from nni_darts.runs.tasks import task_of
from tests.helpers import running, tiny

CHANGES = {'space.channels': 4, 'search.architecture_learning_rate': 0.1}


@pytest.fixture(scope='module')
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    images = tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')
    return Recipe.load('digits', {**tiny.overrides(images), **CHANGES, **tiny.SMALL})


@pytest.fixture(scope='module', params=['darts-1st', 'pc-darts', 'gdas'])
def search(request: pytest.FixtureRequest, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('search')
    running.search(recipe, request.param, 1, folder)
    return folder


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(map(str, words)))
    if result.exit_code == 1:
        raise result.exception
    return result.exit_code, result.output


def test_without_limits_the_cell_is_that_of_the_search_and_limits_give_that_of_a_search_with_limits(
    search: Path, recipe: Recipe, tmp_path: Path
) -> None:
    searched = Searched(search)
    found = searched.within({})
    assert found.strength == pytest.approx(1) and found.genotype.to_json() + '\n' == (search / 'genotype.json').read_text()
    front = searched.front('parameters', {})
    limit = int(front[0].costs['parameters'] + front[-1].costs['parameters']) // 2
    strategy = json.loads((search / 'run.json').read_text())['strategy']
    whole, _ = running.search(recipe.changed({'limits.parameters': limit}, source=''), strategy, 1, tmp_path / 'whole')
    assert searched.within({'parameters': limit}).genotype == whole


def test_costs_of_the_front_are_counted_and_no_random_cell_dominates_it(search: Path, recipe: Recipe) -> None:
    searched, data = Searched(search), task_of(recipe).shape(recipe)
    for measure in ('parameters', 'multiply_adds'):
        front = searched.front(measure, {})
        assert all(cost_of(cell.genotype, recipe, data) == cell.costs for cell in front)
        assert [cell.costs[measure] for cell in front] == sorted({cell.costs[measure] for cell in front})
        assert [cell.strength for cell in front] == sorted({cell.strength for cell in front})
        for seed in range(60):
            sample = recipe.space.sample_of(recipe.space.random_cell(random.Random(seed)))
            cost, strength = searched.program.table.of(searched.program.choices, sample)[measure], searched.strength(sample)
            assert not any(cost <= cell.costs[measure] and strength > cell.strength + 1e-9 for cell in front)


def test_the_command_writes_a_cell_that_other_commands_read(search: Path, recipe: Recipe, tmp_path: Path) -> None:
    least = int(Searched(search).front('parameters', {})[0].costs['parameters'])
    code, output = invoke('derive', search, '--limit', f'parameters={least}', '--output', tmp_path / 'small')
    assert code == 0 and f'{least:,}' in output
    assert f'{least:,}' in invoke('cost', tmp_path / 'small')[1]
    assert Recipe.of_folder(tmp_path / 'small').limits.amounts() == {'parameters': least}  # type: ignore[union-attr]
    assert Genotype.from_dict(json.loads((tmp_path / 'small' / 'genotype.json').read_text())).to_text() in output
    assert invoke('derive', search, '--limit', f'parameters={least}', '--output', tmp_path / 'small')[0] == 2  # it holds a cell already


def test_the_front_is_a_table_and_a_picture(search: Path, tmp_path: Path) -> None:
    for name in ('front.svg', 'front.png'):
        code, output = invoke('derive', search, '--pareto', 'multiply_adds', '--picture', tmp_path / name)
        assert code == 0 and 'multiply-adds  strength' in output and '100.0 %' in output
    rows = [line for line in output.splitlines() if '%' in line]
    circles = [node for node in ElementTree.parse(tmp_path / 'front.svg').iter() if node.tag.endswith('circle')]
    assert len(circles) == len(rows) > 2
    picture = Image.open(tmp_path / 'front.png')
    assert picture.size == (1920, 1200) and len(picture.getcolors(1_000_000)) > 3


def test_wrong_options_get_one_sentence_each(search: Path, recipe: Recipe, tmp_path: Path) -> None:
    for words, message in (
        ([], 'give --selection, or --limit with --output, or --pareto'),
        (['--limit', 'parameters=1k'], 'give --selection, or --limit with --output'),
        (['--limit', 'params=1k'], 'must be parameters, multiply_adds or latency_ms'),
        (['--limit', 'parameters=few', '--pareto'], '--limit parameters: must be a number from 1'),
        (['--limit', 'parameters=10', '--output', tmp_path / 'no'], 'has at least'),
        (['--picture', 'front.svg', '--limit', 'parameters=1G', '--output', tmp_path / 'no'], '--picture draws the front of --pareto'),
        (['--pareto', 'parameters', '--picture', 'front.pdf'], 'ends in .svg or .png'),
        (['--pareto', 'parameters', '--resume'], '--resume is for --selection'),
        (['--pareto', 'parameters', '--output', tmp_path / 'no'], '--output needs --limit'),
        (['--selection', 'pt'], '--selection needs --output'),
        (['--selection', 'pt', '--pareto', 'parameters', '--output', tmp_path / 'no'], 'give only one of them'),
    ):
        code, output = invoke('derive', search, *words)
        assert code == 2 and message in output, output
    assert not (tmp_path / 'no').exists()


def test_searches_without_alpha_at_their_end_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    for strategy in ('enas', 'sgas', 'p-darts', 'darts-pt', 'random'):
        running.search(recipe, strategy, 1, tmp_path / strategy)
        code, output = invoke('derive', tmp_path / strategy, '--pareto')
        assert code == 2 and strategy in output and output.count('Error:') == 1, output


def test_a_perturbation_based_selection_keeps_the_limit_too(search: Path, recipe: Recipe, tmp_path: Path) -> None:
    least = int(Searched(search).front('parameters', {})[0].costs['parameters'])
    words = ['--limit', f'parameters={least + 10}', '--set', 'search.tuning_epochs=1', '--output', tmp_path / 'pt']
    code, output = invoke('derive', search, '--selection', 'pt-mag', *words)
    assert code == 0 and json.loads((tmp_path / 'pt' / 'result.json').read_text())['result']['parameters'] <= least + 10, output
