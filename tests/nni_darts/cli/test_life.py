"""An experiment that runs, as its user looks at it: listed, shown, opened, followed, killed, resumed, stopped. A home of its own."""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from nni_darts.errors import InputError
from nni_darts.experiment import nnictl
from nni_darts.experiment.manager import Manager
from nni_darts.files import cache_folder
from tests.helpers.command import examples_of
from tests.helpers.live import BIN, ENVIRONMENT, free_port
from tests.helpers.tiny import overrides, write_images

pytestmark = pytest.mark.nni


class User:
    """Someone at a terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        # Kernels and choices of executors are this machine's, whoever uses it.
        self.environment = {**ENVIRONMENT, 'HOME': str(home), 'XDG_CACHE_HOME': str(cache_folder().parent)}

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        words = [str(BIN / 'nni-darts'), *shlex.split(line)]
        return subprocess.run(words, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=400)

    def shown(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def listed(self) -> dict[str, object]:
        (found,) = json.loads(self.shown('list --json'))
        return found

    def wait_until(self, condition: Callable[[], object], seconds: float = 200) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.shown('status')
            time.sleep(1)

    def kill_manager(self, identifier: str) -> None:
        for process in psutil.process_iter(['cmdline']):
            words = process.info['cmdline'] or ['']
            if Path(words[0]).name == 'node' and identifier in words:
                process.kill()


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_the_life_of_an_experiment(user: User) -> None:
    user.shown('new quickstart first')
    path = user.home / 'first' / 'experiment.yml'
    config = yaml.safe_load(path.read_text())
    config['tuner']['classArgs']['set'] = {**overrides(write_images(user.home / 'images.npz')), 'search.random_samples': 1}
    config['searchSpace']['strategy']['_value'], config['searchSpace']['seed']['_value'] = ['darts-1st', 'random'], [1]
    path.write_text(yaml.safe_dump(config))
    port, other = free_port(), free_port()
    try:
        (launch,) = examples_of('launch')
        assert user.shown('check first/experiment.yml').endswith('ok\n')
        started = user.shown(f'{launch.removeprefix("nni-darts ").removesuffix(" --wait")} --port {port}')
        identifier = str(user.listed()['id'])
        assert f'experiment {identifier} is running' in started
        found = user.listed()
        assert (found['name'], found['state'], found['port']) == ('digits quickstart', 'running', port)
        assert user.shown('open --print') == f'http://localhost:{port}/logs/summary.html\n'
        assert user.shown('open --print --nni') == f'http://localhost:{port}\n'
        user.wait_until(lambda: user.listed()['done'])
        assert f'  NNI page      http://localhost:{port}' in user.shown('status')

        with pytest.raises(InputError, match=f'experiment {identifier} was started on port {port} at the same moment; choose another port'):
            nnictl._check_own(port, 'another')
        assert f'already running, on port {port}' in user.run(f'resume {identifier} --port {port}').stderr
        (tuner,) = nnictl._tuners(identifier)
        tuner.kill()
        user.wait_until(lambda: not list(nnictl._tuners(identifier)))
        assert f'experiment {identifier} is running' in user.shown(f'resume {identifier} --port {port}')
        assert len(list(nnictl._tuners(identifier))) == 1
        # NNI does not resume a trial again that has not started since it was resumed.
        user.wait_until(lambda: all(trial.status != 'ADD_RESUMED' for trial in Manager(f'localhost:{port}').trials()))

        user.kill_manager(identifier)
        user.wait_until(lambda: user.listed()['state'] == 'died')
        assert f'{identifier} died: its manager ended without being stopped. Continue with nni-darts resume {identifier}.' in user.shown(
            'list'
        )
        assert 'is not running: died' in user.run(f'wait {identifier}').stderr
        assert 'Error: There is no experiment that is running' in user.run('stop').stderr

        (line,) = examples_of('resume')
        assert line == 'nni-darts resume --port 8090 --wait'
        user.shown(f'resume --port {other}')
        (line,) = examples_of('wait')
        table = user.shown(line.removeprefix('nni-darts '))
        rows = [line for line in table.splitlines() if line.startswith(('darts-1st ', 'random '))]
        assert len(rows) == 2
        assert rows == [line for line in user.shown('wait ' + identifier).splitlines() if line.startswith(('darts-1st ', 'random '))]
        found = user.listed()
        assert (found['state'], found['port'], found['done']) == ('finished', other, found['known'])
        first, second = csv.DictReader(io.StringIO(user.shown('table --csv -')))
        assert (first['strategy'], second['strategy'], first['common_seeds']) == ('darts-1st', 'random', '1')
        assert float(first['difference_mean']) == pytest.approx(float(first['valid_mean']) - float(second['valid_mean']))
    finally:
        (line,) = examples_of('stop')
        stopped = user.run(line.removeprefix('nni-darts '))
    assert stopped.returncode == 0 and f'Experiment {identifier} is stopped' in stopped.stdout, stopped.stderr
    assert user.listed()['state'] == 'finished'
    assert user.shown('open --print').startswith('file:///')
    assert 'finished' in user.shown('status').splitlines()[0]
