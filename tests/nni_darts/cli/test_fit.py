"""``nni-darts fit``: mistakes are refused at once; with ``-m slow`` a whole run on odd photos, resumed, and its network used."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nni_darts.cli import main
from nni_darts.cli.fit import parse_count
from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.durations import parse_duration
from nni_darts.runs.fit import Order, Plan
from tests.helpers import running
from tests.helpers.command import run
from tests.helpers.tiny import overrides, write_images


@pytest.mark.parametrize(('text', 'seconds'), [('90s', 90), ('20m', 1200), ('2h', 7200), ('1h30m', 5400), ('1.5d', 129600), (' 2h ', 7200)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, '--time') == seconds


@pytest.mark.parametrize('text', ['', '2', '-2h', '2x', '0m', 'h', '30m1h'])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(InputError, match='--time .* is not a duration'):
        parse_duration(text, '--time')


@pytest.mark.parametrize(('text', 'count'), [('1M', 1_000_000), ('250k', 250_000), ('40000', 40_000), ('0.5m', 500_000)])
def test_numbers_of_parameters(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize('text', ['', 'M', '-1M', 'nan', 'inf', '999', '1T'])
def test_wrong_numbers_of_parameters(text: str) -> None:
    with pytest.raises(InputError, match='number of parameters'):
        parse_count(text)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'nowhere is not a folder of images'),
        (['photos', '--time', 'soon'], "--time 'soon' is not a duration"),
        (['photos', '--max-parameters', 'few'], "--max-parameters 'few' is not a number"),
        (['photos', '--strategy', 'magic'], "unknown strategy 'magic'"),
        (['photos', '--baseline', 'vgg'], "'vgg' is not one of"),
        (['photos', '--output', 'full'], 'full holds other files'),
        (['photos', '--output', 'run'], 'run already holds a run'),
    ],
)
def test_mistakes_are_refused_before_torch_is_imported(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / 'photos').mkdir()
    for folder, file in (('full', 'letter.txt'), ('run', 'fit.json')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text('{}')
    output = [] if '--output' in arguments else ['--output', 'out']
    done = run('fit', *arguments, *output, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and 'loading torch' not in done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which ``out`` holds the plan of a run that was interrupted before its search, on photos that are no longer readable."""
    for name in ('photos', 'other'):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    order = Order(seconds=1200, strategy='darts-1st', baseline='resnet18', max_parameters=50_000, seed=3)
    recipe = Recipe.load('digits', {'data.name': 'folder', 'data.path': 'photos', 'data.image_size': 32})
    (tmp_path / 'out').mkdir()
    Plan(order, recipe.to_dict(), (), {}, 100, 0.0).write(tmp_path / 'out')
    return tmp_path


@pytest.mark.parametrize(
    ('arguments', 'begun_with'),
    [
        (['other'], 'the folder photos, not other'),
        (['photos', '--time', '2h'], '--time 1200s, not 7200s'),
        (['photos', '--time', '1h'], '--time 1200s, not 3600s'),  # the default, but given
        (['photos', '--strategy', 'gdas'], '--strategy darts-1st, not gdas'),
        (['photos', '--baseline', 'none'], '--baseline resnet18, not none'),
        (['photos', '--max-parameters', '1M'], '--max-parameters 50000, not 1000000'),
        (['photos', '--seed', '1'], '--seed 3, not 1'),
    ],
)
def test_a_resumed_run_keeps_its_options(arguments: list[str], begun_with: str, begun: Path) -> None:
    done = CliRunner().invoke(main, ['fit', *arguments, '--output', 'out', '--resume'])
    assert done.exit_code == 2 and f'out holds a run that was begun with {begun_with}; ' in done.stderr, done.stderr
    assert done.stderr.count('Error: ') == 1


@pytest.mark.parametrize('options', ['', '--time 20m --strategy darts-1st --baseline resnet18 --max-parameters 50k --seed 3'])
def test_a_resumed_run_takes_the_same_options_or_none(options: str, begun: Path) -> None:
    done = CliRunner().invoke(main, ['fit', str(begun / 'photos'), *options.split(), '--output', 'out', '--resume'])
    assert done.exit_code == 2 and 'begun with' not in done.stderr and 'photos' in done.stderr, done.stderr  # there are no photos


def test_too_few_photos_are_refused_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    for name in ('a', 'b'):
        (tmp_path / 'photos' / name).mkdir(parents=True)
        for number in range(2):
            Image.new('RGB', (40, 40), (90 * number, 99, 9)).save(tmp_path / 'photos' / name / f'{number}.png')
    done = CliRunner().invoke(main, ['fit', str(tmp_path / 'photos'), '--output', str(tmp_path / 'out'), '--no-open'])
    assert done.exit_code == 2 and '3 training images are too few' in done.stderr and 'timing' not in done.output, done.output
    assert not (tmp_path / 'out' / 'fit.json').exists()


def write_photos(root: Path) -> None:
    """Four classes of coloured patches that can be told apart, one of only two photos, with the oddities of real folders."""
    draw = np.random.default_rng(0)
    for index, (name, count) in enumerate({'café': 20, 'red house': 20, 'sky': 20, 'two of them': 2}.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 120, (36 + number, 40, 3), dtype=np.uint8)
            pixels[:, :, index % 3] += 120
            image, extra, suffix = Image.fromarray(pixels), {}, 'JPG'
            if number == 3:
                image, suffix = image.convert('RGBA'), 'png'
            elif number == 4:
                image = image.convert('CMYK')
            elif number == 5:
                image = image.convert('L')
            elif number == 6:
                image, suffix = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), 'PNG'
            elif number == 7:
                image, suffix = image.convert('P'), 'png'
            elif number == 8:
                extra['exif'] = Image.Exif()
                extra['exif'][0x0112] = 6  # turned by a quarter
            image.save(root / name / f'IMG {number} ü.{suffix}', **extra)
    (root / 'sky' / 'empty.jpg').write_bytes(b'')
    half = (root / 'sky' / 'IMG 1 ü.JPG').read_bytes()
    (root / 'sky' / 'half.jpg').write_bytes(half[: len(half) // 2])
    (root / 'sky' / '._IMG 2 ü.JPG').write_bytes(b'x')
    (root / 'sky' / '.DS_Store').write_bytes(b'x')
    (root / '.thumbnails').mkdir()
    (root / '.thumbnails' / 'IMG 1.jpg').write_bytes(b'x')


def test_a_run_is_resumed_whose_training_got_another_length_than_was_planned(tmp_path: Path) -> None:
    """Its search keeps the recipe that it was begun with."""
    images, output = write_images(tmp_path / 'images.npz'), tmp_path / 'out'
    planned = Recipe.load('digits', {**overrides(images), 'space.nodes': 1, 'search.epochs': 1})
    running.search(planned, 'darts-1st', 1, output / 'search')
    order = Order(600.0, 'darts-1st', None)
    Plan(order, planned.with_epochs('retrain', 3).to_dict(), (), {'measuring': 1.0}, 1, time.time(), settled=True).write(output)
    done = CliRunner().invoke(main, ['fit', str(images), '--output', str(output), '--resume', '--no-open'])
    assert done.exit_code == 0 and 'test accuracy' in done.stdout, done.output
    result = json.loads((output / 'retrain' / 'result.json').read_text())
    assert result['recipe']['retrain']['epochs'] == 3 and (output / 'report.html').is_file()


@pytest.mark.slow
def test_from_a_folder_to_a_prediction(tmp_path: Path) -> None:
    write_photos(tmp_path / 'photos')
    output, begun = tmp_path / 'out', time.monotonic()
    done = run('fit', tmp_path / 'photos', '--output', output, '--time', '6m', '--max-parameters', '50k', '--no-open', timeout=600)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 1.2 * 360
    assert 'empty.jpg' in done.stderr and 'half.jpg' in done.stderr
    assert re.search(r'about \d+ (s|min), until \d\d:\d\d', done.stderr)
    kept = json.loads((output / 'fit.json').read_text())
    assert kept['outcome']['results']['retrain']['parameters'] <= 50_000
    assert kept['outcome']['verdict'] in done.stdout
    assert Recipe.load(output / 'recipe.yml').retrain.epochs == kept['recipe']['retrain']['epochs']
    page = (output / 'report.html').read_text()
    for link in re.findall(r'href="([^"#:]+\.html)"', page):
        assert (output / link).is_file(), link
    check_predictions(output / 'retrain', tmp_path)
    found = run('predict', output, tmp_path / 'photos' / 'café' / 'IMG 0 ü.JPG', '--json')
    assert found.returncode == 0 and 'café' in found.stdout, found.stderr
    again = run('fit', tmp_path / 'photos', '--output', output, '--resume', '--no-open')
    assert again.returncode == 0 and kept['outcome']['verdict'] in again.stdout, again.stderr
    assert json.loads((output / 'fit.json').read_text()) == kept


def check_predictions(trained: Path, folder: Path) -> None:
    """A new photo is taken for the same by the folder, its weights, the ONNX file and the exported program, wherever the photos are."""
    (folder / 'photos').rename(folder / 'moved')
    done = run('export', trained, '--onnx', folder / 'net.onnx', '--pt2', folder / 'net.pt2')
    assert done.returncode == 0, done.stderr
    new = folder / 'new photo.jpeg'
    pixels = np.random.default_rng(1).integers(0, 120, (90, 60, 3), dtype=np.uint8)
    pixels[:, :, 1] += 120
    Image.fromarray(pixels).save(new)
    answers = []
    for model in (trained, trained / 'weights.pt', folder / 'net.onnx', folder / 'net.pt2'):
        done = run('predict', model, new, folder / 'moved' / 'café', '--top', '4', '--json')
        assert done.returncode == 0, (model, done.stderr)
        answers.append(json.loads(done.stdout)['predictions'])
    assert answers[1] == answers[0] and len(answers[0]) == 1 + 20
    for mine, *others in zip(*answers):
        for other in others:
            assert (other['name'], other['label']) == (mine['name'], mine['label'])
            assert other['probabilities'] == pytest.approx(mine['probabilities'], abs=1e-5)
    (folder / 'moved').rename(folder / 'photos')
