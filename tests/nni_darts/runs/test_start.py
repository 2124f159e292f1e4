"""Trainings that start from the weights of a finished one: of another network, and of the same for some more epochs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.weights import read_state_dict
from tests.helpers import running
from tests.helpers.stopping import Stop, stop_at
from tests.helpers.tiny import overrides, text_overrides, write_images, write_text


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(folder / 'weights.pt')


def same(one: Path, other: Path) -> bool:
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in line.items() if 'seconds' not in key} for line in read]


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images.npz')


@pytest.fixture(scope='module')
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two epochs; to be copied, not to be changed."""
    folder = tmp_path_factory.mktemp('finished') / 'out'
    running.train_cell(busy(images), 'retrain', cell(images), 1, folder)
    return folder


def busy(images: Path, **changes: Any) -> Recipe:
    drawn = {'retrain.drop_path': 0.3, 'retrain.auxiliary_weight': 0.4, 'retrain.cutout': 2}
    return Recipe.load('digits', {**overrides(images), **drawn, **{key.replace('__', '.'): value for key, value in changes.items()}})


def cell(images: Path) -> Any:
    return busy(images).random_cells(1)[0]


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


# the same network, longer -------------------------------------------------------------------------------------------------------------


def test_more_epochs_continue_a_finished_training(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / 'out')
    rates: list[float] = []
    before = json.loads((folder / 'result.json').read_text())
    result = running.train_longer(folder, 3)
    assert [(line['epoch'], line['of']) for line in lines(folder)] == [(1, 2), (2, 2), (3, 5), (4, 5), (5, 5)]
    assert lines(folder)[:2] == lines(finished)
    assert (result['epochs'], result['ended']) == (5, 'planned') and result['passes'] == pytest.approx(2.5 * before['result']['passes'])
    after = json.loads((folder / 'result.json').read_text())
    assert after['result'] == result and after['history'] == [{'epochs': 2, 'result': before['result']}] and after['more'] == [3]
    assert after['recipe'] == before['recipe']
    assert not same(folder, finished)
    assert running.train_longer(folder, 3, resume=True) == result  # finished: nothing is done again
    running.train_longer(folder, 1)
    after = json.loads((folder / 'result.json').read_text())
    assert after['more'] == [3, 1] and [entry['epochs'] for entry in after['history']] == [2, 5]
    for path in sorted(folder.glob('more-*/last.ckpt')):
        rates.append(torch.load(path, weights_only=True)['lr_schedulers'][0]['base_lrs'][0])
    assert rates == pytest.approx([0.005, 0.005])  # a tenth of 0.05


def test_drop_path_does_not_grow_again(finished: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_darts.search_spaces import cnn

    seen: list[float] = []
    plain = cnn.Network.set_drop_path
    monkeypatch.setattr(cnn.Network, 'set_drop_path', lambda self, value: (seen.append(value), plain(self, value))[1])
    running.train_longer(copied(finished, tmp_path / 'out'), 2)
    assert set(seen) - {0.0} == {0.3}


@pytest.mark.parametrize('epoch', [3, 4, 5])
def test_more_epochs_are_resumed_as_if_never_interrupted(epoch: int, finished: Path, tmp_path: Path) -> None:
    whole, broken = copied(finished, tmp_path / 'whole'), copied(finished, tmp_path / 'broken')
    expected = running.train_longer(whole, 3)
    with pytest.raises(Stop):
        running.train_longer(broken, 3, on_epoch=stop_at(epoch))
    assert same(broken, finished) and (broken / 'result.json').read_text() == (finished / 'result.json').read_text()
    with pytest.raises(InputError, match='continue that training with --resume'):
        running.train_longer(broken, 3)
    with pytest.raises(InputError, match='give --more 3'):
        running.train_longer(broken, 4, resume=True)
    torch.manual_seed(999)
    result = running.train_longer(broken, 3, resume=True)
    assert result['test_accuracy'] == expected['test_accuracy'] and lines(broken) == lines(whole) and same(broken, whole)


def test_the_best_of_all_epochs_is_kept(images: Path, tmp_path: Path) -> None:
    """The first epochs are made to look as if nothing could be better."""
    out = tmp_path / 'out'
    before = running.train_cell(busy(images, retrain__validation_portion=0.3), 'retrain', cell(images), 1, out)
    weights = tensors(out)
    records = [json.loads(line) for line in (out / 'metrics.jsonl').read_text().splitlines()]
    records[before['kept_epoch'] - 1]['valid_accuracy'] = 1.0
    (out / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
    result = running.train_longer(out, 2)
    assert result['kept_epoch'] == before['kept_epoch'] <= 2 and (result['epochs'], result['valid_accuracy']) == (4, 1.0)
    assert all(torch.equal(weights[name], value) for name, value in tensors(out).items())
    assert result['test_accuracy'] == before['test_accuracy']


def test_text_is_trained_longer_at_a_constant_rate(tmp_path: Path) -> None:
    recipe = Recipe.load('pydoc', text_overrides(write_text(tmp_path)))
    running.train_cell(recipe, 'retrain', recipe.random_cells(1)[0], 1, tmp_path / 'out')
    result = running.train_longer(tmp_path / 'out', 2)
    assert result['epochs'] == 5
    checkpoint = torch.load(tmp_path / 'out' / 'more-1' / 'last.ckpt', weights_only=True)
    assert checkpoint['optimizer_states'][0]['param_groups'][0]['lr'] == pytest.approx(0.1)


def test_only_finished_trainings_are_continued(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'has no run\.json: it is not the output folder of a finished'):
        running.train_longer(tmp_path / 'nothing', 3)
    with pytest.raises(Stop):
        running.train_cell(busy(images), 'retrain', cell(images), 1, tmp_path / 'out', on_epoch=stop_at(1))
    with pytest.raises(InputError, match=r'has no result\.json'):
        running.train_longer(tmp_path / 'out', 3)


def test_data_that_have_changed_since(tmp_path: Path) -> None:
    """Test images must not be trained on: the same run is refused, another one that starts from its weights is warned."""
    path, out, said = write_images(tmp_path / 'images.npz'), tmp_path / 'out', list[str]()
    short = busy(path, retrain__epochs=1)
    running.train_cell(short, 'retrain', cell(path), 1, out)
    write_images(path, train=97)
    with pytest.raises(InputError, match=r'out holds a run whose data have changed since \(train: 96 then, 97 now\)'):
        running.train_longer(out, 1)
    assert json.loads((out / 'run.json').read_text()).get('more') is None
    with pytest.raises(InputError, match=r'changed since \(train: 96 then, 97 now\)'):
        running.train_cell(short, 'retrain', cell(path), 1, out, resume=True)
    how = {'weights': out, 'on_start': lambda line, warnings: said.extend(warnings)}
    running.train_cell(short, 'retrain', cell(path), 1, tmp_path / 'new', **how)
    assert [line for line in said if line.startswith(f'the data have changed since the weights in {out} were trained (train: 96 then, 97 ')]
    assert json.loads((tmp_path / 'new' / 'result.json').read_text())['amounts'] == {
        'train': 97,
        'test': 40,
        'classes': [str(digit) for digit in range(10)],
    }


# the weights of another training ------------------------------------------------------------------------------------------------------


def test_a_training_starts_from_the_weights_of_another_one(finished: Path, images: Path, tmp_path: Path) -> None:
    said: list[str] = []
    barely = busy(images, retrain__learning_rate=1e-9, retrain__weight_decay=0.0, retrain__epochs=1)
    how = {'weights': finished, 'on_start': lambda line, warnings: said.extend(warnings)}
    running.train_cell(barely, 'retrain', cell(images), 2, tmp_path / 'out', **how)
    assert not [line for line in said if 'tensors' in line]
    names = [name for name, value in tensors(finished).items() if value.is_floating_point() and 'running' not in name]
    assert all(torch.allclose(tensors(tmp_path / 'out')[name], tensors(finished)[name], atol=1e-5) for name in names)
    assert json.loads((tmp_path / 'out' / 'result.json').read_text())['weights'] == str(finished)


def test_tensors_of_another_shape_are_new_and_named(finished: Path, images: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(images))
    for part in ('train', 'test'):
        arrays[f'{part}_labels'] = arrays[f'{part}_labels'] % 3
    np.savez(tmp_path / 'three.npz', **arrays)
    three = busy(tmp_path / 'three.npz', retrain__epochs=1)
    said: list[str] = []
    how = {'weights': finished, 'on_start': lambda line, warnings: said.extend(warnings)}
    running.train_cell(three, 'retrain', cell(images), 1, tmp_path / 'out', **how)
    (line,) = [line for line in said if 'tensors' in line]
    total = len(tensors(finished))
    assert line.startswith(f'{total - 4} of {total} tensors are those of {finished}; new because their shape differs: ')
    assert line.count('weight') == 2 and line.count('bias') == 2


def test_a_warm_start_is_resumed_as_if_never_interrupted(finished: Path, images: Path, tmp_path: Path) -> None:
    theirs = copied(finished, tmp_path / 'theirs')
    running.train_cell(busy(images), 'retrain', cell(images), 2, tmp_path / 'whole', weights=theirs)
    with pytest.raises(Stop):
        running.train_cell(busy(images), 'retrain', cell(images), 2, tmp_path / 'broken', weights=theirs, on_epoch=stop_at(2))
    with pytest.raises(InputError, match='another weights'):
        running.train_cell(busy(images), 'retrain', cell(images), 2, tmp_path / 'broken', weights=finished, resume=True)
    shutil.rmtree(theirs)  # what was taken from there is in the checkpoint
    running.train_cell(busy(images), 'retrain', cell(images), 2, tmp_path / 'broken', weights=theirs, resume=True)
    assert same(tmp_path / 'broken', tmp_path / 'whole') and lines(tmp_path / 'broken') == lines(tmp_path / 'whole')


def test_weights_that_do_not_fit_are_refused(finished: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='belong to another cell'):
        running.train_cell(busy(images), 'retrain', busy(images).random_cells(2)[1], 1, tmp_path / 'out', weights=finished)
    with pytest.raises(InputError, match=r'fit \d+ % of the tensors of this network, and at least half must'):
        running.train_cell(busy(images, retrain__channels=7), 'retrain', cell(images), 1, tmp_path / 'out', weights=finished)
    broken = copied(finished, tmp_path / 'broken')
    (broken / 'weights.pt').write_bytes(b'no weights')
    with pytest.raises(InputError, match='does not hold the weights of a network'):
        running.train_cell(busy(images), 'retrain', cell(images), 1, tmp_path / 'out', weights=broken)
    assert not (tmp_path / 'out').exists()


# the command line ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--more', '2', '--genotype', 'DARTS_V2'], '--genotype cannot be combined with --more'),
        (['--more', '2', '--set', 'retrain.epochs=2'], '--set cannot be combined with --more'),
        (['--more', '2', '--seed', '3'], '--seed cannot be combined with --more'),
        (['--more', '2'], '--output: {out} has no run.json'),
        (['--more', '0'], '0 is not in the range'),
        (['--weights', '{out}'], '--weights: {out} has no run.json'),
        ([], 'no cell to train; name one with --genotype'),
    ],
)
def test_what_does_not_go_together_is_one_sentence(options: list[str], message: str, tmp_path: Path) -> None:
    out = str(tmp_path / 'out')
    done = CliRunner().invoke(main, ['retrain', '--output', out, *(option.format(out=out) for option in options)])
    assert done.exit_code == 2 and message.format(out=out) in done.output


def test_commands(finished: Path, tmp_path: Path) -> None:
    longer = copied(finished, tmp_path / 'longer')
    for options in (
        ['--more', '1', '--output', str(longer)],
        ['--weights', str(finished), '--set', 'retrain.epochs=1', '--output', str(tmp_path / 'new')],
    ):
        done = CliRunner().invoke(main, ['retrain', *options])
        assert done.exit_code == 0, done.output
        assert 'kept epoch' in done.output
    assert (
        json.loads((tmp_path / 'new' / 'run.json').read_text())['genotype'] == json.loads((finished / 'run.json').read_text())['genotype']
    )
