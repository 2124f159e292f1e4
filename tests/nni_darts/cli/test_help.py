"""Every command's help has an example, and every example runs: quick ones always, those that take minutes with ``-m slow``.

Lines run as they stand, but for settings behind them that make the work small, a shorter time, and a free port.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.files import cache_folder
from nni_darts.recipes import Recipe
from tests.helpers import running
from tests.helpers.command import examples_of
from tests.helpers.live import BIN, free_port
from tests.helpers.pictures import train_on_photos
from tests.helpers.tiny import overrides, write_images
from tests.nni_darts.cli.test_life import User
from tests.nni_darts.cli.test_overview import add_experiments

ROOT = Path(__file__).parents[3]
NAMES = ['', *main.commands]
"""'' is the command line itself, whose help shows the first steps."""

LIVE = {
    'nni-darts demo',
    'nni-darts demo --port 8090',
    'nni-darts launch first/experiment.yml --wait',
    'nni-darts resume --port 8090 --wait',
    'nni-darts stop',
    'nni-darts trial',
    'nni-darts wait',
}
"""Examples that start an experiment or need one that runs."""
LONG = {'nni-darts fit photos --output out/photos --time 20m'}
LINES = list(dict.fromkeys(line for name in NAMES for line in examples_of(name)))
CHAIN = [*examples_of('export'), *examples_of('predict')]
"""Examples that follow each other: what the first writes is what others read."""
QUICK = [line for line in LINES if line not in LIVE | LONG and line not in CHAIN]

SMALLER = {
    'search': {**overrides(Path('images.npz')), 'search.epochs': 1, 'search.batch_size': 48},
    'retrain': {'retrain.epochs': 1, 'retrain.channels': 4, 'retrain.cells': 3, 'retrain.batch_size': 64},
}
"""Command → settings that are put behind its examples."""
CELL = '|avg_pool_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_1x1~2|'
"""The one that the example of query asks for."""


@pytest.mark.parametrize('name', NAMES)
def test_every_command_has_an_example(name: str) -> None:
    lines = examples_of(name)
    assert lines and all(line.split()[1] == name for line in lines if name)


def test_the_examples_that_take_minutes_are_those_that_run_below() -> None:
    assert LIVE | LONG <= set(LINES)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the examples take for granted; it is also the home of someone who has had experiments."""
    folder = tmp_path_factory.mktemp('prepared')
    train_on_photos(folder)
    for name in ('my_photos', 'new_photos'):
        shutil.copytree(folder / 'photos', folder / name)
    images = write_images(folder / 'images.npz')
    running.search(Recipe.load('digits', {**overrides(images), 'search.epochs': 1}), 'darts-1st', 1, folder / 'out' / 'search')
    (folder / 'examples').symlink_to(ROOT / 'examples')
    (folder / 'nasbench201.csv').write_text(f'arch_str,c10_test\n{CELL},91.5\n')
    add_experiments(folder)
    return folder


def small(line: str) -> list[str]:
    """The words of an example behind ``nni-darts``, with less work to do and on a free port."""
    words = shlex.split(line)[1:]
    if '--port' in words:
        words[words.index('--port') + 1] = str(free_port())
    elif words[0] in ('launch', 'demo'):
        words += ['--port', str(free_port())]
    if words[0] == 'fit':
        words[words.index('--time') + 1] = '8m'
        words += ['--baseline', 'none', '--no-open']
    if '--more' not in words:  # which keeps all settings
        words += [word for name, value in SMALLER.get(words[0], {}).items() for word in ('--set', f'{name}={value}')]
    return words


@pytest.fixture
def inside(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, which is the current one."""
    folder = tmp_path / 'work'
    shutil.copytree(prepared, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv('XDG_CACHE_HOME', str(cache_folder().parent))  # kernels are built once
    monkeypatch.setenv('HOME', str(prepared))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')  # commands hide GPUs from torch, which the environment forgets after the test
    monkeypatch.setenv('PATH', f'{BIN}{os.pathsep}{os.environ["PATH"]}')
    return folder


def shown(line: str, folder: Path) -> None:
    """Runs an example in the folder; it prints something, and writes what it says it writes."""
    line, _, file = line.partition(' > ')
    words = small(line)
    outputs = [folder / words[place + 1] for place, word in enumerate(words) if word in ('--output', '--onnx', '--pt2', '--csv')]
    for output in outputs:
        if '--more' not in words:
            shutil.rmtree(output, ignore_errors=True)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert all(output.exists() for output in outputs if output.name != '-')
    if file:
        (folder / file).write_text(done.stdout)
        assert Recipe.load(file)


@pytest.mark.parametrize('line', QUICK, ids=str)
def test_a_quick_example_runs(line: str, inside: Path) -> None:
    shown(line, inside)


@pytest.mark.slow
def test_the_examples_of_export_and_predict_run(inside: Path) -> None:
    assert CHAIN
    for line in CHAIN:
        shown(line, inside)


@pytest.mark.slow
def test_the_example_of_fit_runs(inside: Path) -> None:
    (line,) = examples_of('fit')
    shutil.rmtree('out')
    done = subprocess.run([BIN / 'nni-darts', *small(line)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout and (inside / 'out' / 'photos' / 'report.html').is_file()


class Started:
    """A command of a user that is at work."""

    def __init__(self, user: User, line: str) -> None:
        words = [str(BIN / 'nni-darts'), *small(line)]
        self.log = user.home / f'{words[1]}.log'
        with self.log.open('w') as log:
            self.process = subprocess.Popen(words, env=user.environment, cwd=user.home, stdout=log, stderr=log)

    def until(self, pattern: str, seconds: float = 200) -> str:
        """Waits for a line that fits a pattern, and returns everything printed by then."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.log.read_text(), re.MULTILINE):
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.5)
        return self.log.read_text()

    def ended(self) -> tuple[int, str]:
        """Its exit code, and all that it has printed."""
        return self.process.wait(300), self.log.read_text()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    yield user
    user.run('stop')


@pytest.mark.slow
@pytest.mark.nni
def test_the_examples_about_a_running_experiment_run(user: User) -> None:
    lines = {line.split()[1]: line for line in LIVE}
    user.shown('new quickstart first')
    path = user.home / 'first' / 'experiment.yml'
    config = yaml.safe_load(path.read_text())
    config['tuner']['classArgs']['set'] = overrides(write_images(user.home / 'images.npz'))
    config['searchSpace']['seed']['_value'] = [1]
    assert f'nni-darts {" ".join(lines["trial"].split()[1:])}' == config['trialCommand']
    path.write_text(yaml.safe_dump(config))
    launched = Started(user, lines['launch'])
    launched.until('^experiment .* is running$')
    user.wait_until(lambda: user.listed()['done'])
    assert 'is stopped' in user.shown(lines['stop'].partition(' ')[2])
    launched.ended()
    resumed = Started(user, lines['resume'])
    resumed.until('^experiment .* is running$')
    waited = Started(user, lines['wait'])
    tables = []
    for started in (resumed, waited):
        code, text = started.ended()
        tables.append([line for line in text.splitlines() if line.startswith(('darts-2nd ', 'random '))])
        assert code == 0 and len(tables[-1]) == 2, text
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.nni
@pytest.mark.parametrize('line', sorted(line for line in LIVE if line.split()[1] == 'demo'))
def test_the_example_of_demo_runs(line: str, user: User) -> None:
    """Until its first epoch: it runs to its end in tests/test_wheel.py."""
    user.environment['XDG_CACHE_HOME'] = str(user.home / 'cache')
    shutil.copytree(cache_folder(), user.home / 'cache' / cache_folder().name)
    started = Started(user, line)
    started.until('^experiment .* is running$')
    user.wait_until(lambda: 'epoch' in user.run('status --json').stdout and user.listed()['state'] == 'running')
    started.process.send_signal(signal.SIGINT)
    code, text = started.ended()
    assert code == 130 and re.search(r'^Experiment \w+ keeps running; .*\.$', text.splitlines()[-1]), text
    assert 'is stopped' in user.shown('demo --stop')
