"""``nni-darts check`` of data and recipes; of experiments: tests/nni_darts/experiment/test_validate.py."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nni_darts.cli import main
from nni_darts.cli.data import is_data, is_recipe
from nni_darts.recipes import Recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / '.cache'))


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, ['check', *map(str, arguments)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (('[red]ant', 12), ('bee hive', 6)):
        (tmp_path / 'my photos' / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / 'my photos' / name / f'{index}.png')
    return tmp_path / 'my photos'


def test_a_good_folder(photos: Path) -> None:
    done = check(photos)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        f'{photos}: 18 images of 2 classes',
        '  class       train',
        '  [red]ant       12',
        '  bee hive        6',
        '  all            18',
    ]
    assert 'test          no test images: 20 % of these images are held out (data.test_portion)' in lines
    assert 'size          40×50 pixels (height × width)' in lines and lines[-1] == 'ok'
    (start,) = [line for line in lines if line.startswith('start from')]
    words = shlex.split(start)[2:]
    values = main.commands['search'].make_context('search', words[2:]).params
    recipe = Recipe.load(values['recipe'], values['overrides'])  # what it says can be typed
    assert recipe.data.path == str(photos) and recipe.data.image_size == 32


def test_a_folder_in_which_something_is_wrong(photos: Path) -> None:
    (photos / 'bee hive' / 'empty.jpg').touch()
    shutil.copy(photos / 'bee hive' / '1.png', photos / '[red]ant' / 'bee.png')
    done = check(photos)
    assert done.exit_code == 0 and '--set data.skip_unreadable=true' in done.stdout  # as nni-darts fit does
    assert 'Warning: ' in done.stderr and 'empty.jpg is not a readable image (the file is empty)' in done.stderr
    assert 'Warning: 1 picture belongs to several classes' in done.stderr
    recipe = ('photos-small', '--set', f'data.path={photos}')
    refused = check(*recipe)
    assert refused.exit_code == 2 and 'Error: ' in refused.stderr and 'empty.jpg is not a readable image' in refused.stderr
    skipped = check(*recipe, '--set', 'data.skip_unreadable=true')
    assert 'empty.jpg is not a readable image' in skipped.stderr and 'Error: 1 of 20' not in skipped.stderr


def test_json_is_one_object(photos: Path) -> None:
    (photos / 'bee hive' / 'empty.jpg').touch()
    done = check(photos, '--json')
    values = json.loads(done.stdout)
    assert done.exit_code == 0 and values['train'] == [12, 6] and values['errors'] == [] and len(values['unreadable']) == 1
    assert values['unreadable'][0] in values['warnings']
    assert values['suggestion']['recipe'] == 'photos-small' and values['suggestion']['command'].startswith('nni-darts search ')


def test_tables_and_arrays(photos: Path, tmp_path: Path) -> None:
    lines = [f'{file},{file.parent.name}' for file in sorted(photos.rglob('*.png'))]
    (tmp_path / 'table.csv').write_text('\n'.join(['path,label', *lines]))
    assert '18 images of 2 classes' in check(tmp_path / 'table.csv').stdout
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / 'a.npz', images=images, labels=np.arange(40) % 4)
    done = check(tmp_path / 'a.npz')
    assert done.exit_code == 0 and '40 images of 4 classes' in done.stdout and '--recipe digits --set data.name=npz ' in done.stdout


def test_folders_of_datasets(photos: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip('datasets', reason='pip install datasets')
    features = datasets.Features({'image': datasets.Image(), 'label': datasets.ClassLabel(names=['ant', 'bee'])})
    files = [str(path) for path in sorted(photos.rglob('*.png'))]
    table = datasets.Dataset.from_dict({'image': files, 'label': [index % 2 for index in range(18)]}, features=features)
    table.save_to_disk(str(tmp_path / 'saved'))
    done = check(tmp_path / 'saved')
    assert done.exit_code == 0 and f'{tmp_path / "saved"}: 18 images of 2 classes' in done.stdout, done.output
    assert '--set data.name=hf --set data.path=' in done.stdout


def test_many_classes_are_summed_up(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / 'a.npz', images=images, labels=np.arange(400) % 50)
    lines = check(tmp_path / 'a.npz').stdout.splitlines()
    assert sum(line.startswith('  ') and line.split()[0].isdigit() for line in lines) == 30
    assert any(line.startswith('  … 20 smaller classes') for line in lines)


def test_a_recipe(photos: Path) -> None:
    done = check('photos-small', '--set', f'data.path={photos}', '--set', 'data.image_size=24', '--set', 'search.epochs=1')
    assert done.exit_code == 0, done.output
    assert f'recipe photos-small; data folder {photos}: 14 training and 4 test images, 2 classes, 3×24×24' in done.stdout
    assert 'Warning: darts-2nd: 1 steps of α' in done.stderr and 'start from' not in done.stdout


def test_a_recipe_that_cannot_be_run(photos: Path, tmp_path: Path) -> None:
    recipe = (ROOT / 'nni_darts' / 'recipes' / 'photos-small.yml').read_text().replace('path: photos', f'path: {photos}')
    (tmp_path / 'mine.yml').write_text(recipe)
    done = check(tmp_path / 'mine.yml', '--set', 'search.portion=0.01')
    assert done.exit_code == 2 and 'Error: 14 training images are too few' in done.stderr
    done = check(tmp_path / 'mine.yml', '--set', 'search.portio=0.01')
    assert done.exit_code == 2 and "unknown key 'search.portio'" in done.stderr


def test_a_recipe_of_text() -> None:
    done = check('pydoc')
    assert done.exit_code == 0 and 'recipe pydoc; data pydoc: ' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('absent',), 'cannot read absent'),
        (('examples/quickstart.yml', '--set', 'search.epochs=1'), '--set changes a recipe, and examples/quickstart.yml is not one'),
        (('examples/own_images', '--set', 'data.image_size'), 'an override is written section.key=value'),
        (('examples',), 'class folders without images'),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = check(*arguments)
    assert done.exit_code == 2 and sentence in done.stderr and 'Traceback' not in done.output


def test_what_a_target_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert is_data(Path('examples/own_images')) and not is_data(Path('examples/quickstart.yml'))
    assert is_recipe(Path('digits')) and is_recipe(Path('nni_darts/recipes/ptb.yml'))
    assert not any(is_recipe(Path(name)) for name in ('examples/quickstart.yml', 'examples/own_images.yml', 'absent.yml', 'setup.cfg'))
    broken = tmp_path / 'broken.json'
    broken.write_text('{"data')
    assert not is_recipe(broken)


def on_a_terminal(*arguments: str) -> str:
    """Returns the output of a command on a real pseudo-terminal of 80 columns, in a forked process that need not repeat the imports."""
    child, ours = pty.fork()
    if not child:
        os.environ |= {'TERM': 'xterm-256color', 'COLUMNS': '80'}
        sys.stdout, sys.stderr = (os.fdopen(number, 'w') for number in (1, 2))
        try:
            main(list(arguments), prog_name='nni-darts')
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
    shown = b''
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert os.waitpid(child, 0)[1] == 0, shown.decode()
    return shown.decode()


def test_a_terminal_gets_a_table_with_bars(photos: Path) -> None:
    shown = on_a_terminal('check', str(photos))
    assert '█' * 24 in shown and '█' * 12 + ' ' in shown and '[red]ant' in shown
