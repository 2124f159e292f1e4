"""The wheel, installed into an environment of its own outside the repository: all that it needs is in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.live import free_port

ROOT = Path(__file__).parents[1]
FOLDERS = {
    'examples': 'nni_darts/examples',
    'search_spaces': 'nni_darts/search_spaces',
    'strategies': 'nni_darts/strategies',
    'nni_darts': 'nni_darts',
}
LEFT_OUT = shutil.ignore_patterns('.*', 'build', 'dist', '*.egg-info', '__pycache__', 'ort', 'tests', 'docs', 'benchmarks')


class Installed:
    """An environment with the wheel, the packages of this one beside it, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / 'env' / 'bin'
        self.work = folder / 'work'
        self.work.mkdir()
        shutil.copytree(ROOT, folder / 'source', ignore=LEFT_OUT)
        pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
        build = ['wheel', '--no-deps', '--no-build-isolation', '--no-index', '--wheel-dir', str(folder), str(folder / 'source')]
        subprocess.run([*pip, *build], check=True, capture_output=True, timeout=200)
        shutil.rmtree(folder / 'source')
        (self.wheel,) = folder.glob('*.whl')
        venv.create(folder / 'env', with_pip=False)
        (packages,) = (folder / 'env' / 'lib').glob('python3*/site-packages')
        # A .pth file adds folders, and does not run the .pth files in them: the editable installation is not found through it.
        (packages / 'shared.pth').write_text('\n'.join(site.getsitepackages()) + '\n')
        into = ['--python', str(self.bin / 'python'), 'install', '--no-deps', '--no-index', '--no-compile', '--ignore-installed']
        subprocess.run([*pip, *into, str(self.wheel)], check=True, capture_output=True, timeout=200)
        nnictl = Path(sys.executable).parent / 'nnictl'
        (self.bin / 'nnictl').write_text(re.sub(r'\A#!.*', f'#!{self.bin / "python"}', nnictl.read_text()))
        (self.bin / 'nnictl').chmod(0o755)

    def run(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.bin), '/usr/bin', '/bin'])
        kept = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        command = [str(self.bin / 'nni-darts'), *words]
        return subprocess.run(command, env={**kept, 'PATH': path}, cwd=self.work, capture_output=True, text=True, timeout=timeout)

    def shown(self, *words: str, timeout: float = 120) -> str:
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp('wheel'))


def test_it_is_the_wheel_that_runs(installed: Installed) -> None:
    code = 'import nni_darts as a, nni_darts.examples as b, nni_darts.strategies as c; print(a.__file__, b.__file__, c.__file__)'
    done = subprocess.run([installed.bin / 'python', '-c', code], cwd=installed.work, capture_output=True, text=True, timeout=60)
    files = done.stdout.split()
    assert len(files) == 3 and all(Path(file).is_relative_to(installed.bin.parent) for file in files), done.stdout + done.stderr


def test_everything_that_it_needs_is_in_it(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        inside = set(wheel.namelist())
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob('*'):
            path = file.relative_to(ROOT / folder)
            if file.is_file() and '__pycache__' not in path.parts and path.parts[:2] != ('browser', 'ort'):
                assert f'{package}/{path.as_posix()}' in inside
    assert installed.wheel.stat().st_size < 2e6


def test_doctor(installed: Installed) -> None:
    report = json.loads(installed.shown('doctor', '--json'))
    found = {finding['name']: finding for finding in report['findings']}
    assert found['nni-darts command']['found'] == str(installed.bin / 'nni-darts')
    assert found['packages']['state'] == 'ok'


def test_an_experiment_to_begin_with(installed: Installed) -> None:
    installed.shown('new', 'images', 'pets')
    assert installed.shown('check', 'pets/experiment.yml').endswith('ok\n')


def test_a_recipe_and_a_strategy(installed: Installed) -> None:
    assert installed.shown('recipes', 'digits') == (ROOT / 'nni_darts' / 'recipes' / 'digits.yml').read_text()
    assert 'arXiv:2108.04392' in installed.shown('strategies', 'darts-pt')


@pytest.mark.slow
def test_a_network_is_trained_and_classifies_a_picture(installed: Installed) -> None:
    sizes = ('--set', 'retrain.epochs=1', '--set', 'retrain.cells=3', '--set', 'retrain.channels=4')
    installed.shown('retrain', '--recipe', 'digits', '--genotype', 'DARTS_V2', *sizes, '--output', 'trained', timeout=300)
    Image.new('L', (20, 30), 128).save(installed.work / 'grey.png')
    answers = json.loads(installed.shown('predict', 'trained', 'grey.png', '--top', '10', '--json'))['predictions']
    assert [answer['name'] for answer in answers] == ['grey.png']
    assert sum(answers[0]['probabilities'].values()) == pytest.approx(1, abs=1e-5) and len(answers[0]['probabilities']) == 10
    shutil.rmtree(installed.work / 'trained')
    (installed.work / 'grey.png').unlink()


@pytest.mark.slow
@pytest.mark.nni
def test_demo(installed: Installed) -> None:
    port = free_port()
    try:
        said = installed.shown('demo', '--port', str(port), timeout=1500)
        assert [line.split()[0] for line in said.splitlines() if line.startswith(('darts-2nd ', 'random '))] == ['darts-2nd', 'random']
        again = installed.run('demo', '--port', str(port))
        assert again.returncode == 2 and f'at http://localhost:{port}; nni-darts demo --stop ends it' in again.stderr
    finally:
        stopped = installed.shown('demo', '--stop')
    assert 'is stopped' in stopped and installed.shown('demo', '--stop') == 'No demo is running.\n'
    assert list(installed.work.iterdir()) in ([], [installed.work / 'pets'])
