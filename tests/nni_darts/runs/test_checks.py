"""Recipes that are refused before torch is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from nni_darts import PUBLISHED
from nni_darts.errors import InputError
from nni_darts.genotypes import genotype_from_code
from nni_darts.recipes import Recipe
from nni_darts.runs.checks import check_data_path, check_genotype, check_strategies, strategy_settings


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'darts-2nd': {'hessian': 'foo'}}, "search.settings of darts-2nd: hessian must be finite_difference or exact, not 'foo'"),
        ({'darts-2nd': {'epsilon': True}}, 'search.settings of darts-2nd: epsilon must be a number above 0, not True'),
        ({'darts-pt': {'batches': 0}}, 'search.settings of darts-pt: batches must be a whole number from 1 or null, not 0'),
        ({'sdarts-rs': {'first': 0.4}}, r'search.settings of sdarts-rs: the perturbation must grow within \[0, 1\), not from 0.4 to 0.3'),
        ({'p-darts': {'cells': [5, 11]}}, r'search.settings of p-darts: cells \[5, 11\] and dropout .* need a number for each stage'),
        ({'darts-1st': {'warmup_epochs': 2.5}}, 'warmup_epochs must be a whole number of epochs, or below 1 a part of the search, not 2.5'),
        ({'darts-1st': {'early_stopping': {'window': 4}}}, 'early_stopping: window must be odd'),
        ({'sgas': {'early_stopping': True}}, 'search.settings of sgas: early_stopping would leave edges undecided'),
        (
            {'random': {'cells': 3}},
            'search.settings of random: search.random_samples is the number of cells that it trains, so leave out cells',
        ),
        ({'random': {'prior': {'proxy': 'fisher'}}}, "search.settings of random: prior: proxy must be synflow, jacob_cov, .* not 'fisher'"),
        (
            {'random': {'prior': {'draws': 10}}},
            "search.settings of random: prior: there is no setting 'draws'; allowed: proxy, draw, batch_size",
        ),
        (
            {'evolution': {'prior': 'synflow'}},
            "prior must be null or a mapping of proxy, draw, batch_size, such as {proxy: synflow}, not 'syn",
        ),
        ({'proxy': {'draw': 0}}, 'search.settings of proxy: draw must be a whole number from 1, not 0'),
        ({'evolution': {'population': 40}}, 'cells must be more than population'),
        ({'darts-3rd': {}}, "search.settings: unknown strategy 'darts-3rd'"),
    ],
)
def test_settings_of_any_strategy_are_checked(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_strategies(Recipe.load('digits', {'search.settings': settings}), ['darts-1st'])


def test_some_epochs_must_be_left_to_train_alpha() -> None:
    late = Recipe.load('digits', {'search.settings': {'darts-1st': {'warmup_epochs': 8}, 'p-darts': {'warmup_epochs': 4}}})
    check_strategies(late, ['darts-2nd'])
    with pytest.raises(InputError, match='search.settings of darts-1st: warmup_epochs is 8, which leaves none of the 8 epochs'):
        check_strategies(late, ['darts-2nd', 'darts-1st'])
    with pytest.raises(InputError, match='search.settings of p-darts: warmup_epochs is 4, which leaves none of the 4 epochs of a stage'):
        check_strategies(late, ['p-darts'])
    check_strategies(Recipe.load('digits', {**late.to_dict(), 'budget': {'passes': 40}}), ['darts-1st'])


@pytest.mark.parametrize(('written', 'asked'), [('darts-pt', 'darts-1st+pt'), ('darts-1st+pt', 'darts-pt'), ('darts-pt', 'darts-pt')])
def test_settings_count_under_either_name_of_a_strategy(written: str, asked: str) -> None:
    recipe = Recipe.load('digits', {'search.settings': {written: {'batches': 3}}})
    assert strategy_settings(recipe, asked)['batches'] == 3
    both = Recipe.load('digits', {'search.settings': {'darts-pt': {'batches': 1}, 'darts-1st+pt': {'batches': 2}}})
    assert [strategy_settings(both, name)['batches'] for name in ('darts-pt', 'darts-1st+pt')] == [1, 2]


def test_a_budget_decides_how_many_cells_evolution_trains() -> None:
    """So its settings are not held against the default number, nor the budget against a strategy that does not run."""
    recipe = Recipe.load('digits', {'search.settings': {'evolution': {'population': 40}}, 'budget.passes': 300})
    check_strategies(recipe, ['evolution'])
    small = Recipe.load('digits', {'budget.passes': 8})
    check_strategies(small, ['darts-1st'])
    with pytest.raises(InputError, match='search.settings of evolution: a budget of 8 passes pays for 1 cell; '):
        check_strategies(small, ['evolution'])


@pytest.mark.parametrize(
    ('cell', 'recipe', 'sentence'),
    [
        ('DARTS_V2-RNN', 'digits', 'the recipe digits trains convolutional cells, and .* is a recurrent one'),
        ('DARTS_V2', 'pydoc', 'the recipe pydoc trains recurrent cells, and .* is a convolutional one'),
        ('nb201.333133', 'digits', 'retrain.cells must be a multiple of 3 for a cell of NAS-Bench-201, which has three stages, not 5'),
    ],
)
def test_cells_whose_network_cannot_be_trained(cell: str, recipe: str, sentence: str) -> None:
    genotype = PUBLISHED[cell] if cell in PUBLISHED else genotype_from_code(cell)
    with pytest.raises(InputError, match=sentence):
        check_genotype(Recipe.load(recipe), genotype, 'retrain')
    check_genotype(Recipe.load('nasbench201'), genotype_from_code('nb201.333133'), 'retrain')


def test_the_module_of_a_users_function_is_looked_for_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'my_images.py').write_text('raise SystemExit("imported")')
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    for name in ('my_images:load', 'os.path:join', 'sys:exit'):
        check_data_path(Recipe.load('digits', {'data.name': name}))
    with pytest.raises(InputError, match="no module 'my_image' for data set 'my_image:load' in .* or on PYTHONPATH"):
        check_data_path(Recipe.load('digits', {'data.name': 'my_image:load'}))
    assert sys.path == before and 'my_images' not in sys.modules


@pytest.mark.parametrize(
    ('name', 'kind', 'sentence'),
    [
        ('npz', 'absent', 'there is no file or folder .*here.$'),
        ('cifar10', 'absent', 'there is no file or folder .*here. cifar10 is read from a folder into which torchvision'),
        ('npz', 'folder', 'here is a folder; the data set npz is read from a file'),
        ('csv', 'folder', 'here is a folder; the data set csv is read from a file'),
        ('folder', 'file', 'here is a file; the data set folder is read from a folder'),
        ('cifar10', 'file', 'here is a file; the data set cifar10 is read from a folder'),
    ],
)
def test_the_place_of_the_data(name: str, kind: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / 'here'
    if kind != 'absent':
        path.mkdir() if kind == 'folder' else path.touch()
    size = {'data.image_size': 8} if name in ('folder', 'csv') else {}
    with pytest.raises(InputError, match=sentence):
        check_data_path(Recipe.load('digits', {'data.name': name, 'data.path': str(path), **size}))
    check_data_path(Recipe.load('digits', {'data.name': 'os:listdir', 'data.path': str(path / 'anything')}))
