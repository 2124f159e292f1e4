"""NNI's remote service over a real ssh server on this machine. Slow, and not in CI: NNI upgrades itself with pip at each start."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nni_darts import Genotype
from tests.nni_darts.experiment.live import BIN, free_port, launched
from tests.nni_darts.tiny import overrides, write_images

SSHD = shutil.which('sshd') or shutil.which('sshd', path='/usr/sbin')

pytestmark = [pytest.mark.nni, pytest.mark.slow, pytest.mark.skipif(SSHD is None, reason='no sshd on this machine')]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict]:
    """An ssh server of our own on loopback, with its own key: an entry of NNI's machineList."""
    for name in ('host', 'user'):
        subprocess.run(['ssh-keygen', '-q', '-t', 'rsa', '-m', 'PEM', '-N', '', '-f', str(tmp_path / name)], check=True)
    (tmp_path / 'authorized').write_text((tmp_path / 'user.pub').read_text())
    (tmp_path / 'authorized').chmod(0o600)
    port = free_port()
    settings = {
        'Port': port,
        'ListenAddress': '127.0.0.1',
        'HostKey': tmp_path / 'host',
        'AuthorizedKeysFile': tmp_path / 'authorized',
        'PidFile': tmp_path / 'pid',
        'StrictModes': 'no',
        'UsePAM': 'no',
        'PasswordAuthentication': 'no',
        'PermitRootLogin': 'yes',
        'Subsystem': 'sftp internal-sftp',
    }
    (tmp_path / 'config').write_text(''.join(f'{key} {value}\n' for key, value in settings.items()))
    Path('/run/sshd').mkdir(exist_ok=True)
    server = subprocess.Popen([str(SSHD), '-D', '-f', str(tmp_path / 'config')], stderr=subprocess.DEVNULL)
    time.sleep(1)
    assert server.poll() is None
    try:
        yield {
            'host': '127.0.0.1',
            'port': port,
            'user': getpass.getuser(),
            'sshKeyFile': str(tmp_path / 'user'),
            'pythonPath': str(BIN),
        }
    finally:
        server.terminate()
        server.wait(20)


def test_everything_worth_keeping_comes_back_through_the_metrics(machine: dict, tmp_path: Path) -> None:
    images = write_images(tmp_path / 'images.npz')
    with launched(
        tmp_path,
        searchSpace={'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}, 'seed': {'_type': 'choice', '_value': [1, 2]}},
        classArgs={'recipe': 'digits', 'set': overrides(images)},
        nniManagerIp='127.0.0.1',
        trainingService={'platform': 'remote', 'reuseMode': False, 'machineList': [machine]},
    ) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 560)
        trials = experiment.trials()
        results = Counter(trial.key for trial in trials if trial.metric is not None)
        assert len(results) == 10 and set(results.values()) == {1}
        for trial in trials:
            assert trial.metric is not None and trial.metric['key'] == trial.parameters['key']
            assert Genotype.from_code(trial.metric['arch']).nodes == 2
            if trial.parameters['arch']:
                assert trial.metric['arch'] == trial.parameters['arch']
        metrics = {trial.key: trial.metric for trial in trials}
        for seed in (1, 2):
            shown = json.loads((experiment.folder / 'log' / f'search-darts-1st-{seed}.json').read_text())
            assert shown['over'] and [entry['epoch'] for entry in shown['epochs']] == [1, 2]
            assert shown['epochs'][-1]['arch'] == metrics[f'search darts-1st {seed}']['arch']
            assert len(shown['epochs'][-1]['probabilities']) == 10
