"""The commands that use a trained network: what they print, what they refuse, and how soon."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts import load_model
from nni_darts.cli import main
from tests.helpers.command import examples_of
from tests.helpers.pictures import COLOURS, train_on_photos, write_oddities

COMMAND = [sys.executable, '-W', 'ignore', '-m', 'nni_darts']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``photos``, ``photo.jpg``, ``odd``, ``out/retrain``, a network that was trained for a moment, and a folder and a link in the way."""
    folder = tmp_path_factory.mktemp('models')
    train_on_photos(folder)
    write_oddities(folder / 'odd')
    (folder / 'folder.csv').mkdir()
    (folder / 'same.onnx').symlink_to('out/retrain/weights.pt')
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the folder. Those in this process hide GPUs from torch, which the environment forgets after the test."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name='nni-darts')


def example(command: str) -> list[str]:
    """The first example of a command's help."""
    return examples_of(command)[0].split()[1:]


def test_predictions_as_text_table_and_json(folder: Path) -> None:
    shown = run(*example('predict'))
    assert shown.exit_code == 0 and shown.stderr == '', shown.stderr
    assert re.fullmatch(r'photo\.jpg(  [a-zü ]+ \d+\.\d %){3}\n', shown.stdout)
    done = run('predict', 'out/retrain', 'photo.jpg', 'odd', '--top', 2, '--json', '--csv', 'answers.csv', '--batch-size', 3)
    assert done.exit_code == 0
    values = json.loads(done.stdout)
    expected = load_model(folder / 'out' / 'retrain').predict([folder / 'photo.jpg', folder / 'odd'], on_unreadable=print)
    assert values['classes'] == list(COLOURS) and len(values['predictions']) == len(expected) == 10
    for answer, other in zip(values['predictions'], expected):
        assert (folder / answer['name']).samefile(other.name) and answer['label'] == other.label
        assert answer['probabilities'] == pytest.approx(other.top(2), abs=1e-5)
    rows = list(csv.DictReader(io.StringIO((folder / 'answers.csv').read_text())))
    assert [row['path'] for row in rows] == [answer['name'] for answer in values['predictions']]
    assert all(float(row['probability']) == max(float(row[name]) for name in COLOURS) == float(row[row['label']]) for row in rows)
    assert done.stderr.splitlines() == [
        f'Warning: odd: 1 file is left out (1 .heic); only files that end in {done.stderr.splitlines()[0].partition("end in ")[2]}',
        'Left out: odd/empty.jpg is not a readable image (the file is empty).',
        done.stderr.splitlines()[2],
    ]
    assert done.stderr.splitlines()[2].startswith('Left out: odd/half.jpg is not a readable image (') and len(values['unreadable']) == 2
    printed = run('predict', 'out/retrain/weights.pt', 'odd', '--csv', '-')
    assert printed.stdout.splitlines()[0] == 'path,label,probability,dunkel,grün blau,hell,rot' and len(printed.stdout.splitlines()) == 10


def test_exit_code_1_where_nothing_could_be_read(folder: Path) -> None:
    done = run('predict', 'out/retrain', 'odd/empty.jpg', 'odd/half.jpg', '--json')
    assert done.exit_code == 1 and done.stderr.count('Left out: ') == 2 and json.loads(done.stdout)['predictions'] == []


def test_an_evaluation_as_text_and_json(folder: Path) -> None:
    (folder / 'photos' / 'test' / 'rot' / 'broken.png').write_bytes(b'nothing')
    arguments = example('evaluate')
    shown, values = run(*arguments), json.loads(run(*arguments, '--json').stdout)
    (folder / 'photos' / 'test' / 'rot' / 'broken.png').unlink()
    assert shown.exit_code == 0 and shown.stderr.splitlines()[-1].startswith('Left out: photos/test/rot/broken.png'), shown.stderr
    chance = values['accuracy_interval'][0] <= values['largest_class']
    assert shown.stderr.count('Warning: there is no evidence that the network does better than always predicting') == chance
    result = json.loads((folder / 'out' / 'retrain' / 'result.json').read_text())['result']
    assert values['accuracy'] == pytest.approx(result['test_accuracy']) and values['count'] == 8 and len(values['unreadable']) == 1
    assert f'accuracy  {100 * values["accuracy"]:.2f} % of 8 images, 95 % interval' in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80 and 'grün blau' in shown.stdout and 'Confusion matrix' in shown.stdout
    assert run('evaluate', 'out/retrain', 'photos').stdout == shown.stdout  # of both sides the test images


def test_an_accuracy_that_is_no_evidence_is_followed_by_a_warning(folder: Path) -> None:
    """With images of a single class, predicting it always is right; each image once under its predicted class is evidence."""
    (folder / 'one' / 'rot').mkdir(parents=True)
    (folder / 'one' / 'rot' / 'photo.jpg').write_bytes((folder / 'photo.jpg').read_bytes())
    for arguments in (['evaluate', 'out/retrain', 'one'], ['evaluate', 'out/retrain', 'one', '--json']):
        done = run(*arguments)
        warning = (
            'Warning: there is no evidence that the network does better than always predicting the largest class (100.0 % of the images)'
        )
        assert done.exit_code == 0 and done.stderr.startswith(f'{warning}: its accuracy is '), done.stderr
        assert '95 % interval on 1 image: ' in done.stderr and done.stderr.endswith(' %); train for more epochs, or use more images.\n')
    model = load_model(folder / 'out' / 'retrain')
    files = sorted((folder / 'photos').glob('*/*/*.jpg'))
    answers = model.predict(files)
    (folder / 'right.csv').write_text('path,label\n' + ''.join(f'{file},{label}\n' for file, label in zip(files, answers.labels)))
    done = run('evaluate', 'out/retrain', 'right.csv')
    assert '100.00 %' in done.stdout and ('no evidence' in done.stderr) == (len(set(answers.labels)) == 1)
    learned = [file for file in files if 'train' in file.parts]
    assert f'Warning: {len(learned)} of these {len(files)} images are in the data on which the network was trained; ' in done.stderr


def test_images_of_the_training_are_named_in_a_warning_and_others_are_not(folder: Path) -> None:
    count = len(list((folder / 'photos' / 'train').glob('*/*.jpg')))
    done = run('evaluate', 'out/retrain', 'photos/train')
    assert done.stderr.startswith(f'Warning: {count} of these {count} images are in the data on which the network was trained; ')
    assert 'on which the network was trained' not in run('evaluate', 'out/retrain', 'photos').stderr
    (folder / 'alone').mkdir()
    (folder / 'alone' / 'weights.pt').write_bytes((folder / 'out' / 'retrain' / 'weights.pt').read_bytes())
    assert 'on which the network was trained' not in run('evaluate', 'alone', 'photos/train').stderr  # nobody knows


@pytest.mark.parametrize(
    ('arguments', 'sentence', 'at_once'),
    [
        (['predict', 'out', 'photo.jpg', '--json', '--csv', '-'], 'give only one of them', True),
        (['predict', 'nowhere', 'photo.jpg'], 'there is no file or folder nowhere', True),
        (['predict', 'photos', 'photo.jpg'], 'photos has no weights.pt', True),
        (['predict', 'photo.jpg', 'photo.jpg'], 'photo.jpg is not a model', True),
        (['predict', 'out/retrain', 'nothing.jpg'], 'there is no image or folder nothing.jpg', True),
        (['predict', 'out/retrain', 'photo.jpg', '--csv', 'nowhere/x.csv'], 'there is no folder nowhere', True),
        (['predict', 'out/retrain', 'photo.jpg', '--csv', 'photo.jpg'], 'photo.jpg: name a file that ends in .csv, .tsv or .txt', True),
        (['predict', 'out/retrain', 'photo.jpg', '--csv', 'folder.csv'], '--csv folder.csv is a folder', True),
        (['export', 'out/retrain', '--onnx', 'out/retrain/weights.pt'], 'weights.pt: name a file that ends in .onnx', True),
        (['export', 'out/retrain', '--pt2', 'photo.jpg'], 'photo.jpg: name a file that ends in .pt2', True),
        (['export', 'out/retrain', '--onnx', 'same.onnx'], 'same.onnx is out/retrain/weights.pt itself', True),
        (['table', '--csv', 'photo.jpg'], 'photo.jpg: name a file that ends in .csv, .tsv or .txt', True),
        (['launch', 'photo.jpg', '--id-file', 'photo.jpg'], 'photo.jpg does not hold an id', True),
        (['predict', 'out/retrain'], 'IMAGE_OR_FOLDER', True),
        (['predict', 'out/retrain', 'photo.jpg', '--top', '0'], '--top', True),
        (['evaluate', 'out/retrain', 'nothing'], 'there is no folder or table nothing', True),
        (['evaluate', 'nowhere', 'photos'], 'there is no file or folder nowhere', True),
        (['evaluate', 'out/retrain', 'out'], 'out has images of classes that the model does not know|out is not a folder of class', False),
        (['predict', 'out/retrain', 'photo.jpg', '--device', 'moon'], "device 'moon' cannot be used here", False),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str, at_once: bool) -> None:
    if at_once:  # before torch is imported
        code = 'import sys; from nni_darts.cli import main\ntry: main(sys.argv[1:], "nni-darts")\nfinally: print("torch" in sys.modules)'
        files = [Path('photo.jpg'), Path('out/retrain/weights.pt')]
        before = [file.read_bytes() for file in files]
        done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *arguments], capture_output=True, text=True)
        assert [file.read_bytes() for file in files] == before
        assert (done.returncode, done.stdout) == (2, 'False\n')
    else:
        done = run(*arguments)
        assert done.exit_code == 2 and done.stdout == ''
    assert re.search(sentence, done.stderr), done.stderr
    assert 'Traceback' not in done.stderr and sum(line.startswith('Error: ') for line in done.stderr.splitlines()) == 1


def test_a_terminal_sees_what_is_going_on() -> None:
    terminal, other = os.openpty()
    process = subprocess.Popen(
        [*COMMAND, 'predict', 'out/retrain', 'photos', '--batch-size', '1'],
        stdout=subprocess.PIPE,
        stderr=other,
        env={**os.environ, 'TERM': 'xterm', 'COLUMNS': '80'},
    )
    os.close(other)
    seen, until = b'', time.monotonic() + 200
    while time.monotonic() < until:
        try:
            part = os.read(terminal, 10_000)
        except OSError:  # the terminal is closed
            break
        seen += part
    os.close(terminal)
    printed = process.stdout.read().decode()
    assert process.wait() == 0 and printed.count('\n') == 32
    assert 'loading torch' in seen.decode('utf-8', 'replace')  # images are classified too fast to be drawn
