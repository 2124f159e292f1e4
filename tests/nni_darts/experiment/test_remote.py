"""NNI's remote service over real ssh servers on this machine. Slow, and not in CI: NNI upgrades itself with pip at each start."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nni_darts import Genotype
from nni_darts.experiment.machines import look_at
from nni_darts.recipes import Recipe
from tests.helpers.live import Experiment, launched
from tests.helpers.sshd import SSHD, Machine
from tests.helpers.tiny import overrides, write_images

pytestmark = [pytest.mark.nni, pytest.mark.slow, pytest.mark.skipif(SSHD is None, reason='no sshd on this machine')]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    started = [Machine(f'127.0.0.{number}', tmp_path / f'machine-{number}') for number in (2, 3)]
    yield started
    for machine in started:
        machine.die()


def test_everything_comes_back_although_a_machine_dies(machines: list[Machine], tmp_path: Path) -> None:
    images = write_images(tmp_path / 'images.npz')
    with launched(
        tmp_path,
        searchSpace={'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}, 'seed': {'_type': 'choice', '_value': [1, 2]}},
        classArgs={'recipe': 'digits', 'set': overrides(images), 'max_retries': 20},
        nniManagerIp='127.0.0.1',
        trialConcurrency=2,
        trainingService={'platform': 'remote', 'reuseMode': False, 'machineList': [machine.entry for machine in machines]},
    ) as experiment:
        assert experiment.listens_on() == {'127.0.0.1'}
        experiment.wait(lambda: sum(trial.metric is not None for trial in experiment.trials()) >= 1, 300)
        experiment.wait(lambda: any(b'nni-darts' in command(process) for process in machines[1].processes()), 120)
        machines[1].die()
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 560)
        check_results(experiment)


def command(process: int) -> bytes:
    try:
        return Path(f'/proc/{process}/cmdline').read_bytes()
    except OSError:
        return b''


def check_results(experiment: Experiment) -> None:
    results = Counter(trial.key for trial in experiment.trials() if trial.metric is not None)
    assert len(results) == 10 and set(results.values()) == {1}
    for trial in experiment.trials():
        if trial.metric is not None:
            assert trial.metric['key'] == trial.parameters['key']
            assert Genotype.from_code(trial.metric['arch']).nodes == 2
            if trial.parameters['arch']:
                assert trial.metric['arch'] == trial.parameters['arch']
    metrics = {trial.key: trial.metric for trial in experiment.trials() if trial.metric is not None}
    for seed in (1, 2):
        shown = json.loads((experiment.folder / 'log' / f'search-darts-1st-{seed}.json').read_text())
        assert shown['over'] and [entry['epoch'] for entry in shown['epochs']] == [1, 2]
        assert shown['epochs'][-1]['arch'] == metrics[f'search darts-1st {seed}']['arch']
        assert len(shown['epochs'][-1]['probabilities']) == 10
    trained = json.loads((experiment.folder / 'log' / 'retrain-random-1.json').read_text())
    assert trained['over'] and [entry['epoch'] for entry in trained['epochs']] == [1, 2]
    assert trained['result']['test_accuracy'] == metrics['retrain random 1']['test_accuracy']


def test_a_machine_is_looked_at_first(machines: list[Machine], tmp_path: Path) -> None:
    entry = machines[0].entry
    images = write_images(tmp_path / 'images.npz')
    recipe = Recipe.load('digits', overrides(images))
    errors, fact = look_at(entry, recipe, tmp_path)
    assert not errors and fact.startswith(f'machine {entry["user"]}@127.0.0.2: Python 3.')
    images.unlink()
    assert 'cannot load the data: InputError: no file' in look_at(entry, recipe, tmp_path)[0][0]
    errors, _ = look_at({**entry, 'pythonPath': '/nowhere'}, None, tmp_path)
    assert 'nni-darts nowhere, but' in ' '.join(errors)
    machines[0].die()
    assert 'cannot be reached with ssh' in look_at(entry, None, tmp_path)[0][0]
