"""Experiments to begin with: each is one that can start, and nothing of the user's is overwritten."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.errors import InputError
from nni_darts.experiment.starters import EXPERIMENT, STARTERS, write_starter
from nni_darts.experiment.validate import check_experiment
from nni_darts.recipes import Recipe, recipe_text
from tests.helpers.command import run

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / 'examples' / 'own_images'


def errors(path: Path) -> list[str]:
    """Returns the errors that a check finds, except a missing ssh key, which this machine need not have."""
    return [error for error in check_experiment(path).errors if 'SSH key file' not in error]


@pytest.mark.parametrize('name', STARTERS)
def test_every_starter_passes_its_check(name: str, tmp_path: Path) -> None:
    folder = tmp_path / 'with a space' / "and 'quotes'"
    written = write_starter(name, folder)
    assert written[0] == folder / EXPERIMENT
    assert errors(written[0]) == []
    config, text = yaml.safe_load(written[0].read_text()), written[0].read_text()
    assert 'examples/' not in text and text.count('#') >= 2
    assert config == {**yaml.safe_load((ROOT / 'examples' / STARTERS[name].example).read_text()), 'tuner': config['tuner']}
    recipe = folder / config['tuner']['classArgs']['recipe']
    assert recipe == written[1] and recipe.read_text().startswith('#')


@pytest.mark.parametrize('name', STARTERS)
def test_the_recipe_beside_an_experiment_is_that_of_its_example(name: str, tmp_path: Path) -> None:
    arguments = yaml.safe_load((ROOT / 'examples' / STARTERS[name].example).read_text())['tuner']['classArgs']
    _, recipe, *_ = write_starter(name, tmp_path)
    assert recipe.read_text() == recipe_text(arguments['recipe'])


def test_own_images_are_where_the_user_has_them(tmp_path: Path) -> None:
    data = tmp_path / "photos of Zoe's"
    data.symlink_to(IMAGES)
    experiment, _ = write_starter('images', tmp_path / 'pets', data=data)
    assert errors(experiment) == []
    arguments = yaml.safe_load(experiment.read_text())['tuner']['classArgs']
    assert arguments['set'] == {'data.path': str(data)}
    recipe = Recipe.load(str(tmp_path / 'pets' / arguments['recipe']), arguments['set'])
    assert recipe.data.image_size == Recipe.load('photos-small').data.image_size


def test_own_text_is_where_the_user_has_it(tmp_path: Path) -> None:
    for name in ('train', 'valid', 'test'):
        (tmp_path / f'{name}.txt').write_text('one two three four five six\n' * 500)
    experiment, _ = write_starter('text', tmp_path / 'text', data=tmp_path)
    assert errors(experiment) == []
    assert yaml.safe_load(experiment.read_text())['tuner']['classArgs']['optimize_mode'] == 'minimize'


def test_machines_are_those_of_the_user(tmp_path: Path) -> None:
    experiment, _ = write_starter('remote', tmp_path, machines=['me@127.0.0.1', '127.0.0.2:2222'])
    config = yaml.safe_load(experiment.read_text())
    first, second = config['trainingService']['machineList']
    assert (first['user'], first['host'], 'port' in first) == ('me', '127.0.0.1', False)
    assert (second['host'], second['port']) == ('127.0.0.2', 2222)
    assert Path(first['pythonPath'], 'nni-darts').exists()
    assert config['nniManagerIp'] == '127.0.0.1'  # as that machine sees this one


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ({'name': 'quik'}, "'quik' .*; choose from quickstart, images, text, compare, remote"),
        ({'name': 'quickstart', 'data': Path('nowhere')}, '--data belongs to images and text'),
        ({'name': 'images', 'data': Path('nowhere')}, '--data nowhere: there is no such folder'),
        ({'name': 'images', 'data': next(IMAGES.iterdir())}, 'has no class folders; put the images of each class into a folder'),
        ({'name': 'images', 'machines': ['me@host']}, '--machine belongs to remote'),
        ({'name': 'remote', 'machines': ['me@host:ssh']}, r"--machine 'me@host:ssh' must be \[USER@\]HOST"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_mistake_writes_nothing(arguments: dict, names: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f'{names}.*\\.$'):
        write_starter(folder=tmp_path / 'new', **arguments)
    assert not (tmp_path / 'new').exists()


def test_images_of_one_class_are_refused(tmp_path: Path) -> None:
    for inner in ('', 'train'):
        (tmp_path / 'one' / inner / 'cat').mkdir(parents=True)
    (tmp_path / 'two' / 'cat').mkdir(parents=True)
    (tmp_path / 'two' / '.hidden').mkdir()
    for name, where in (('one', 'train'), ('two', 'two')):
        with pytest.raises(InputError, match=f'--data .*{name}: .*{where} has only one class folder, cat; put the images of each class'):
            write_starter('images', tmp_path / 'new', data=tmp_path / name)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', ['experiment.yml', 'images.yml', 'images/mine.png'])
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('mine')
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(InputError, match='already exists and is not overwritten'):
        write_starter('images', tmp_path)
    assert sorted(tmp_path.rglob('*')) == before and (tmp_path / name).read_text() == 'mine'


def test_empty_files_may_be_there(tmp_path: Path) -> None:
    (tmp_path / 'experiment.yml').touch()
    (tmp_path / 'images').mkdir()
    assert errors(write_starter('images', tmp_path)[0]) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='file is a file'):
        write_starter('quickstart', tmp_path / 'file')


def test_the_next_steps_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ['new', 'quickstart', 'a folder'])
    assert done.exit_code == 0, done.output
    steps = [shlex.split(line, comments=True) for line in done.stdout.splitlines() if line.startswith('  nni-darts ')]
    assert [words[1] for words in steps] == ['check', 'launch'] and steps[1][3:] == ['--wait']
    assert {words[2] for words in steps} == {'a folder/experiment.yml'}
    checked = CliRunner().invoke(main, steps[0][1:])
    assert checked.exit_code == 0 and 'recipe quickstart' in checked.stdout, checked.output


def test_no_demo_to_stop(tmp_path: Path) -> None:
    done = run('demo', '--stop', env={**os.environ, 'HOME': str(tmp_path), 'XDG_CACHE_HOME': str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, 'No demo is running.\n')
