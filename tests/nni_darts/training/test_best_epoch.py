"""Which epoch's weights are kept, and when a training ends early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.data import ImageDataModule, load_images
from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.weights import read_state_dict
from nni_darts.search_spaces import network_from_genotype
from tests.helpers import running
from tests.helpers.stopping import Stop
from tests.helpers.tiny import overrides, text_overrides, write_images, write_text


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def restless(images: Path, **changes: Any) -> Recipe:
    """A training whose validation accuracy goes up and down: the rate is too high for it."""
    settings = {'retrain.epochs': 4, 'retrain.learning_rate': 0.4, 'retrain.min_learning_rate': 0.4, 'retrain.validation_portion': 0.3}
    return Recipe.load('digits', {**overrides(images), **settings, **{key.replace('__', '.'): value for key, value in changes.items()}})


def trained(recipe: Recipe, output: Path, stage: str = 'retrain', **how: Any) -> dict[str, Any]:
    return running.train_cell(recipe, stage, recipe.random_cells(1)[0], 1, output, **how)


def epochs_in(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in line.items() if 'seconds' not in key} for line in lines]


def valid_accuracy(recipe: Recipe, folder: Path) -> float:
    """Of the weights in the folder, computed anew."""
    network = network_from_genotype(recipe.random_cells(1)[0], recipe.retrain.channels, recipe.retrain.cells, 10, in_channels=1).eval()
    network.load_state_dict(read_state_dict(folder / 'weights.pt'))
    module = ImageDataModule(load_images(recipe.data), recipe.data, train_portion=0.7, batch_size=16, seed=1)
    pairs = [(network(batch).argmax(1) == labels).float() for batch, labels in module.val_dataloader()]
    return float(torch.cat(pairs).mean())


def same_weights(one: Path, other: Path) -> bool:
    weights = [read_state_dict(folder / 'weights.pt') for folder in (one, other)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_the_best_epoch_is_kept_where_data_is_held_out_and_the_last_one_if_asked(images: Path, tmp_path: Path) -> None:
    kept = {}
    for keep in (None, 'best', 'last'):
        recipe = restless(images, retrain__keep=keep)
        kept[keep] = trained(recipe, tmp_path / str(keep))
        assert valid_accuracy(recipe, tmp_path / str(keep)) == pytest.approx(kept[keep]['valid_accuracy'], abs=1e-5)
    values = [epoch['valid_accuracy'] for epoch in epochs_in(tmp_path / 'None')]
    assert max(values) > values[-1]  # else this shows nothing
    assert kept[None]['kept_epoch'] == kept['best']['kept_epoch'] == values.index(max(values)) + 1
    assert kept[None]['valid_accuracy'] == max(values) and kept['last']['valid_accuracy'] == values[-1]
    assert kept['last']['kept_epoch'] == 4 and not same_weights(tmp_path / 'last', tmp_path / 'best')
    assert {(result['epochs'], result['ended']) for result in kept.values()} == {(4, 'planned')}
    assert epochs_in(tmp_path / 'last') == epochs_in(tmp_path / 'best')


def test_short_trainings_are_of_one_length_and_compared_at_their_end(images: Path, tmp_path: Path) -> None:
    recipe = restless(images, retrain__keep='best', retrain__patience=1, select__epochs=4)
    assert (recipe.select.keep, recipe.select.patience) == (None, None)
    result = trained(recipe, tmp_path, 'select')
    assert (result['kept_epoch'], result['epochs']) == (4, 4)


def test_patience_ends_a_training_that_gets_no_better(images: Path, tmp_path: Path) -> None:
    whole = trained(restless(images), tmp_path / 'whole')
    assert whole['kept_epoch'] <= 3  # else patience has nothing to end
    recipe = restless(images, retrain__patience=1)
    result = trained(recipe, tmp_path / 'short')
    lines = epochs_in(tmp_path / 'short')
    values = [epoch['valid_accuracy'] for epoch in lines]
    assert result['ended'] == 'patience' and result['epochs'] == len(values) < 4
    assert lines[-1]['epoch'] == lines[-1]['of']
    assert values == [epoch['valid_accuracy'] for epoch in epochs_in(tmp_path / 'whole')][: len(values)]
    assert values[-1] <= max(values[:-1]) == result['valid_accuracy']
    assert result['passes'] == pytest.approx(0.7 * len(values), abs=1e-3)
    # Interrupted after any of its epochs, the last one and its result included, it ends the same.
    for epoch in range(1, len(values) + 1):
        broken = tmp_path / f'broken-{epoch}'

        def stop(record: dict[str, Any], epoch: int = epoch) -> None:
            if record['epoch'] == epoch:
                raise Stop

        with pytest.raises(Stop):
            trained(recipe, broken, on_epoch=stop)
        again = trained(recipe, broken, resume=True)
        assert {key: again[key] for key in ('kept_epoch', 'epochs', 'ended', 'test_accuracy')} == {
            key: result[key] for key in ('kept_epoch', 'epochs', 'ended', 'test_accuracy')
        }
        assert same_weights(broken, tmp_path / 'short') and epochs_in(broken) == lines
    (tmp_path / 'short' / 'result.json').unlink()
    again = trained(recipe, tmp_path / 'short', resume=True)
    assert (again['epochs'], again['ended'], epochs_in(tmp_path / 'short')) == (len(values), 'patience', lines)


def test_text_keeps_the_best_unless_told_otherwise(tmp_path: Path) -> None:
    from nni_darts.genotypes.recurrent import RnnGenotype

    text = {**text_overrides(write_text(tmp_path)), 'retrain.epochs': 4, 'retrain.learning_rate': 100.0, 'retrain.averaging': None}
    results = {}
    for keep in (None, 'last'):
        recipe = Recipe.load('pydoc', {**text, 'retrain.keep': keep})
        cell = recipe.random_cells(1)[0]
        assert isinstance(cell, RnnGenotype)
        results[keep] = running.train_cell(recipe, 'retrain', cell, 1, tmp_path / str(keep))
    values = [epoch['valid_perplexity'] for epoch in epochs_in(tmp_path / 'None')]
    assert values.index(min(values)) + 1 == results[None]['kept_epoch'] < 4 == results['last']['kept_epoch']
    assert results[None]['valid_perplexity'] == min(values) and results['last']['valid_perplexity'] == values[-1]


def test_a_run_of_an_earlier_version_ends_with_its_last_weights(images: Path, tmp_path: Path) -> None:
    recipe = restless(images)

    def stop(record: dict[str, Any]) -> None:
        if record['epoch'] == 3:
            raise Stop

    with pytest.raises(Stop):
        trained(recipe, tmp_path / 'old', on_epoch=stop)
    checkpoint = torch.load(tmp_path / 'old' / 'last.ckpt', weights_only=True)
    del checkpoint['callbacks']['BestEpoch']
    torch.save(checkpoint, tmp_path / 'old' / 'last.ckpt')
    result = trained(recipe, tmp_path / 'old', resume=True)
    trained(restless(images, retrain__keep='last'), tmp_path / 'last')
    assert result['kept_epoch'] == 4 and same_weights(tmp_path / 'old', tmp_path / 'last')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('retrain.keep', 'best', r'retrain: keep: best needs a validation_portion above 0'),
        ('retrain.patience', 3, r'retrain: patience: 3 needs a validation_portion above 0'),
        ('retrain.patience', 0, r'retrain\.patience = 0 is wrong'),
        ('retrain.keep', 'first', r"retrain\.keep = 'first' is wrong"),
    ],
)
def test_what_needs_held_out_data_is_refused_without_it(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load('digits', {'retrain.validation_portion': 0.0, key: value})
