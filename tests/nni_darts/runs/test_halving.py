"""Successive halving on the command line: promoted cells are trained on, the best is chosen, and the real passes are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT
from nni_darts.genotypes import genotype_from_text
from nni_darts.recipes import Recipe
from nni_darts.runs.budget import cells_passes
from nni_darts.runs.cells import number_of_cells, parts_to_train
from nni_darts.runs.run import Run
from nni_darts.runs.spec import RunSpec
from nni_darts.training.run import epochs_of
from tests.helpers import running, tiny
from tests.helpers.stopping import Stop

HALVING = {'select.epochs': 4, 'select.halving': {'eta': 2, 'min_epochs': 1}, 'search.random_samples': 4}
EACH = 0.7
"""Passes of an epoch: validation_portion is 0.3."""


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def halved(images: Path, **changes: Any) -> Recipe:
    return Recipe.load('digits', {**tiny.overrides(images), **HALVING, **changes})


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text())['result'] for path in folder.glob('cell-*/result.json')}


def test_the_best_half_is_trained_on(images: Path, tmp_path: Path) -> None:
    recipe = halved(images)
    genotype, result = running.search(recipe, 'random', 1, tmp_path)
    found = results(tmp_path)
    first = {name: found[name]['valid_accuracy'] for name in ('cell-0', 'cell-1', 'cell-2', 'cell-3')}
    order = sorted(first, key=lambda name: -first[name])  # stable: ties go to the first
    second = {f'{name}-1': found[f'{name}-1']['valid_accuracy'] for name in order[:2]}
    winner = max(second, key=lambda name: second[name])
    assert set(found) == {*first, *second, f'{winner.removesuffix("-1")}-2'} and len(found) == 7
    assert sorted(result['epochs'] for result in found.values()) == [1, 1, 1, 1, 2, 2, 4]
    (last,) = [name for name in found if name.endswith('-2') and name.count('-') == 2]
    assert result['valid_accuracy'] == found[last]['valid_accuracy'] and found[last]['ended'] == 'planned'
    assert genotype_from_text((tmp_path / last / 'genotype.json').read_text()) == genotype
    assert result['passes'] == pytest.approx((4 * 1 + 2 * 1 + 1 * 2) * EACH) == pytest.approx(cells_passes(recipe, 4))
    assert {name: found[name]['passes'] for name in found} == pytest.approx({name: EACH * (2 if name == last else 1) for name in found})


def test_a_promoted_training_is_the_uninterrupted_one(images: Path, tmp_path: Path) -> None:
    """Weights, optimizer, learning rates and every measurement, bit for bit."""
    recipe = halved(images, **{'data.augment': 'crop', 'select.drop_path': 0.2})
    genotype, _ = running.search(recipe, 'random', 1, tmp_path / 'search')
    whole = recipe.model_copy(update={'select': recipe.select.model_copy(update={'halving': None})})
    running.train_cell(whole, 'select', genotype, 1, tmp_path / 'whole')
    (last,) = [path.parent for path in (tmp_path / 'search').glob('cell-*-2/result.json')]
    measured = [[{name: line[name] for name in line if 'seconds' not in name and name != 'of'} for line in epochs_of(folder)]
                for folder in (last, tmp_path / 'whole')]  # fmt: skip
    assert measured[0] == measured[1] and len(measured[0]) == 4
    rates = [line['learning_rate'] for line in measured[0]]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 4  # one cosine, which no promotion restarts
    one, other = (torch.load(folder / CHECKPOINT, weights_only=True) for folder in (last, tmp_path / 'whole'))
    assert all(torch.equal(value, other['state_dict'][name]) for name, value in one['state_dict'].items())
    buffers = [checkpoint['optimizer_states'][0]['state'] for checkpoint in (one, other)]
    assert all(torch.equal(buffers[0][key]['momentum_buffer'], buffers[1][key]['momentum_buffer']) for key in buffers[0])


def test_a_promoted_language_model_keeps_its_best_epoch_and_its_average(tmp_path: Path) -> None:
    folder = tiny.write_text(tmp_path)
    changes = {**tiny.text_overrides(folder), **HALVING, 'select.averaging': 1}
    recipe = Recipe.load('pydoc', changes)
    genotype, result = running.search(recipe, 'random', 1, tmp_path / 'search')
    whole = recipe.model_copy(update={'select': recipe.select.model_copy(update={'halving': None})})
    trained = running.train_cell(whole, 'select', genotype, 1, tmp_path / 'whole')
    (last,) = [path.parent for path in (tmp_path / 'search').glob('cell-*-2/result.json')]
    assert result['valid_perplexity'] == trained['valid_perplexity']
    assert results(tmp_path / 'search')[last.name]['kept_epoch'] == trained['kept_epoch']
    one, other = (torch.load(path / 'weights.pt', weights_only=True) for path in (last, tmp_path / 'whole'))
    assert all(torch.equal(value, other['state_dict'][name]) for name, value in one['state_dict'].items())
    assert result['passes'] == pytest.approx(4 * 1 + 2 * 1 + 1 * 2)


def test_a_search_can_be_moved_and_resumed(images: Path, tmp_path: Path) -> None:
    recipe = halved(images)
    genotype, _ = running.search(recipe, 'random', 1, tmp_path / 'whole')

    def stop(record: dict[str, Any]) -> None:
        if record['epoch'] == 3:
            raise Stop

    with pytest.raises(Stop):
        running.search(recipe, 'random', 1, tmp_path / 'here', on_epoch=stop)
    (tmp_path / 'here').rename(tmp_path / 'there')
    assert running.search(recipe, 'random', 1, tmp_path / 'there', resume=True)[0] == genotype


def test_a_part_without_its_beginning_is_one_sentence(images: Path, tmp_path: Path) -> None:
    recipe = halved(images)
    with pytest.raises(InputError, match=f'has no {CHECKPOINT} any more, which holds the first epochs of this training'):
        (cell,) = recipe.random_cells(1, 1)
        Run(RunSpec.training(recipe, 'select', cell, 1, part=(1, 2), continues='cell-0'), tmp_path / 'cell-0-1').execute()


@pytest.mark.parametrize('strategy', ['random', 'evolution', 'proxy'])
def test_an_interrupted_search_ends_as_the_uninterrupted_one(strategy: str, images: Path, tmp_path: Path) -> None:
    settings = {'evolution': {'cells': 5, 'population': 2, 'sample': 2}, 'proxy': {'draw': 6, 'batch_size': 16, 'cells': 3}}
    recipe = halved(images, **{'search.settings': settings})
    genotype, result = running.search(recipe, strategy, 1, tmp_path / 'whole')
    stops = 0
    for at in (2, 4):

        def stop(record: dict[str, Any], at: int = at) -> None:
            if record['epoch'] == at:
                raise Stop

        with pytest.raises(Stop):
            running.search(recipe, strategy, 1, tmp_path / 'broken', on_epoch=stop, resume=stops > 0)
        stops += 1
    again, resumed = running.search(recipe, strategy, 1, tmp_path / 'broken', resume=True)
    assert again == genotype and resumed['valid_accuracy'] == result['valid_accuracy'] and resumed['passes'] == result['passes']
    found = [results(tmp_path / name) for name in ('whole', 'broken')]
    assert {name: value['valid_accuracy'] for name, value in found[0].items()} == {
        name: value['valid_accuracy'] for name, value in found[1].items()
    }
    ranking = 6 / 96 if strategy == 'proxy' else 0.0  # six images of ones
    assert result['passes'] == pytest.approx(cells_passes(recipe, number_of_cells(recipe, strategy)) + ranking, abs=1e-3)


def test_evolution_bases_a_child_on_the_longest_trainings_that_are_decided(images: Path) -> None:
    """Cells 1 and 2 are random; child 3 is proposed once the better of them has been trained for two epochs."""
    settings = {'evolution': {'cells': 4, 'population': 2, 'sample': 2, 'parallel': 1}}
    recipe = halved(images, **{'search.settings': settings, 'select.epochs': 2})

    def parts(values: dict[tuple[int, int], float | None]) -> list[tuple[int, int]]:
        return [(part.number, part.rung) for part in parts_to_train(recipe, 'evolution', 1, values)]

    assert parts({}) == [(1, 0), (2, 0)]
    assert parts({(1, 0): 0.2, (2, 0): 0.1}) == [(1, 0), (2, 0), (1, 1)]
    assert parts({(1, 0): 0.2, (2, 0): 0.1, (1, 1): 0.3}) == [(1, 0), (2, 0), (3, 0), (1, 1)]
    done = {(1, 0): 0.2, (2, 0): 0.1, (1, 1): 0.3, (3, 0): 0.25}
    assert parts(done) == [(1, 0), (2, 0), (3, 0), (4, 0), (1, 1)]
    assert parts({**done, (4, 0): 0.05}) == [(1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (3, 1)]
    epochs = {part.rung: part.epochs for part in parts_to_train(recipe, 'evolution', 1, done)}
    assert epochs == {0: (0, 1), 1: (1, 2)}


@pytest.mark.parametrize(('passes', 'cells'), [(2.8, 1), (3.4, 1), (3.5, 2), (4.2, 3), (5.6, 4), (6.2, 4), (6.3, 5)])
def test_a_budget_buys_as_many_cells_as_halving_allows(passes: float, cells: int, images: Path) -> None:
    """4 epochs in full cost 2.8. n cells cost 0.7 · (n + ⌊n/2⌋ + 2 ⌊n/4⌋), with at least one cell on each rung: 3.5 for 2, 4.2 for 3."""
    recipe = halved(images, **{'budget.passes': passes})
    assert number_of_cells(recipe, 'random') == cells
    assert cells_passes(recipe, cells) <= passes + 1e-9 < cells_passes(recipe, cells + 1) + 1e-9


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'select.halving': {'eta': 1}}, 'select.halving.eta'),
        ({'select.halving': {'etta': 3}}, 'select.halving.etta'),
        ({'select.halving': {'min_epochs': 4}}, 'select.halving.min_epochs is 4; it must be below select.epochs, 4'),
        ({'retrain.halving': {'eta': 3}}, 'halving is for the short training of many cells, so it belongs into select'),
        ({'select.patience': 2}, 'select.halving and select.patience both end short trainings early'),
    ],
)
def test_impossible_settings_are_one_sentence(changes: dict[str, Any], sentence: str, images: Path) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        halved(images, **changes)
    assert '\n' not in str(error.value)
