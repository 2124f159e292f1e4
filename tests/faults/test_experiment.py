"""A live experiment whose trials and manager are killed: every result once, under its right name (``make test-faults``)."""

from __future__ import annotations

import ctypes
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from nni_darts import Genotype
from nni_darts.experiment.manager import FINISHED
from tests.helpers.live import ENVIRONMENT, Experiment, launched
from tests.helpers.tiny import overrides, write_images

pytestmark = [pytest.mark.faults, pytest.mark.nni]

TRIAL_KILLS, MANAGER_KILLS = 15, 6
STRATEGIES, SEEDS = ['darts-1st', 'random'], [1, 2, 3]
_PR_SET_CHILD_SUBREAPER = 36  # Linux


def kill_a_trial(experiment: Experiment, rng: random.Random) -> str | None:
    """The id of a running trial that was killed."""
    try:
        running = [trial.id for trial in experiment.trials() if trial.status == 'RUNNING']
    except requests.RequestException:
        return None
    rng.shuffle(running)
    return next((identifier for identifier in running if experiment.kill(identifier)), None)


@pytest.fixture
def adopted() -> Iterator[None]:
    """A manager that is killed stays on the list of processes, as in a container without an init: nobody asks for its end."""
    adopt = ctypes.CDLL(None).prctl
    assert adopt(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    adopt(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.usefixtures('adopted')
def test_every_result_once_under_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    images = write_images(tmp_path / 'images.npz')
    space = {'strategy': {'_type': 'choice', '_value': STRATEGIES}, 'seed': {'_type': 'choice', '_value': SEEDS}}
    settings = {**overrides(images), 'search.epochs': 6, 'select.epochs': 4, 'retrain.epochs': 8, 'checkpoint_steps': 2}
    arguments = {'recipe': 'digits', 'set': settings, 'max_retries': 100}
    started = time.monotonic()
    killed: list[str] = []
    managers = 0
    with launched(tmp_path, searchSpace=space, classArgs=arguments) as experiment:
        plan = ['trial'] * TRIAL_KILLS + ['manager'] * MANAGER_KILLS
        rng.shuffle(plan)
        for what in plan:
            time.sleep(rng.uniform(1, 6))
            if what == 'trial':
                identifier = None
                while identifier is None and experiment.manager.status() != 'DONE':
                    identifier = kill_a_trial(experiment, rng)
                    time.sleep(0.5)
                if identifier is None:
                    break
                killed.append(identifier)
            else:
                process = experiment.manager_process()
                assert process is not None
                process.kill()
                managers += 1
                time.sleep(rng.uniform(0, 5))
                experiment.resume()
                assert experiment.listens_on() == {'127.0.0.1'}
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 900)
        trials = experiment.trials()
        summary = json.loads((experiment.folder / 'log' / 'summary.json').read_text())
    with capsys.disabled():
        print(
            f'\n{len(killed)} kills of trials, {managers} of the manager, {len(trials)} trials in all, '
            f'{sum(trial.metric is not None for trial in trials)} results, {time.monotonic() - started:.0f} s'
        )
    assert len(killed) + managers >= 20

    expected = {f'{stage} darts-1st {seed}' for stage in ('search', 'select') for seed in SEEDS}
    expected |= {f'select random {seed}.{cell}' for seed in SEEDS for cell in (1, 2)}
    expected |= {f'retrain {name} 1' for name in STRATEGIES}
    results = Counter(trial.key for trial in trials if trial.metric is not None)
    assert set(results) == expected and set(results.values()) == {1}
    for trial in trials:
        assert trial.status in FINISHED
        if trial.metric is not None:
            assert trial.metric['key'] == trial.parameters['key']
            output = experiment.folder / 'environments' / 'local-env' / 'trials' / trial.id
            run = json.loads((output / 'result.json').read_text())
            assert (run['stage'], run['seed']) == (trial.parameters['stage'], trial.parameters['seed'])
            assert Genotype.from_json((output / 'genotype.json').read_text()).code() == trial.metric['arch']
            assert trial.parameters['arch'] in ('', trial.metric['arch'])
    # The same seeds give the same cells, whatever was killed: two results of one job would agree, but there is one of each.
    incidents = {incident['trial'] for incident in summary['incidents']}
    assert incidents == {trial.id for trial in trials if trial.metric is None}
    assert all(incident['why'] for incident in summary['incidents'])


def test_a_disk_without_room_is_the_reason_in_the_summary(tmp_path: Path) -> None:
    """A limit of the size of files, as ``ulimit -f`` sets it, stands for the disk: the same on every machine, and NNI itself has room."""
    space = {'strategy': {'_type': 'choice', '_value': ['random']}, 'seed': {'_type': 'choice', '_value': [1]}}
    arguments = {
        'recipe': 'digits',
        'set': {**overrides(write_images(tmp_path / 'images.npz')), 'search.random_samples': 1},
        'max_retries': 0,
    }
    limited = 'prlimit --fsize=2000 nni-darts trial'
    with launched(tmp_path, searchSpace=space, classArgs=arguments, trialCommand=limited) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'ERROR', 120)
        summary = json.loads((experiment.folder / 'log' / 'summary.json').read_text())
    (incident,) = summary['incidents']
    assert incident['key'] == 'select random 1.1' and re.fullmatch(
        r'\S*/run\.json cannot be written: it would be larger than this process or file system may write \(ulimit -f\)\. '
        r'Make room; when it is restarted, the trial continues from its last checkpoint\.',
        incident['why'],
    ), incident


FAULTY = """
import os
import time
from pathlib import Path

import numpy as np


def load(path):
    images = np.load(path)
    if 'NNI_TRIAL_JOB_ID' in os.environ:
        log = Path(__file__).with_name('calls')
        with log.open('a') as file:
            file.write('x')
        call = log.stat().st_size
        if call == 1:
            time.sleep(600)
        if call == 2:
            raise OSError('the drive is gone')
        if call == 3:
            os._exit(0)
    return dict(images)
"""


def test_what_happened_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trials that hang, raise, end without a word, diverge."""
    images = write_images(tmp_path / 'images.npz')
    (tmp_path / 'faulty.py').write_text(FAULTY)
    wild = {'data.name': 'faulty:load', 'search.learning_rate': 900.0, 'search.weight_decay': 500.0, 'search.gradient_clip': None}
    settings = {**overrides(images), **wild}
    with launched(
        tmp_path,
        searchSpace={'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}},
        classArgs={'recipe': 'digits', 'set': settings, 'stall_minutes': 0.75, 'max_retries': 3},
    ) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 600)
        trials = experiment.trials()
        summary = json.loads((experiment.folder / 'log' / 'summary.json').read_text())
        page = requests.get(f'http://localhost:{experiment.port}/logs/summary.html', timeout=20).text
    with capsys.disabled():
        print('\n' + '\n'.join(f'{incident["key"]}: {incident["why"]}' for incident in summary['incidents']))
    said = ' '.join(incident['why'] for incident in summary['incidents'])
    for what in ('it hung: no progress for 0:00:45', 'the drive is gone', 'it ended as SUCCEEDED without a result', 'has diverged'):
        assert what in said and what in page
    assert len(summary['incidents']) == 4 and summary['failed'] == ['search darts-1st 1']
    results = Counter(trial.key for trial in trials if trial.metric is not None)
    assert results == {'select random 1.1': 1, 'select random 1.2': 1, 'retrain random 1': 1}


LATE = """
import sys, time
from pathlib import Path

mark = Path(__file__).with_name('late')
if '--exp_params' in sys.orig_argv and not mark.exists():
    mark.touch()
    time.sleep(14)
"""


def test_a_tuner_that_comes_too_late_is_started_again(tmp_path: Path) -> None:
    """NNI gives it ten seconds, and would leave the experiment in ERROR."""
    (tmp_path / 'sitecustomize.py').write_text(LATE)
    images = write_images(tmp_path / 'images.npz')
    with launched(
        tmp_path,
        {**ENVIRONMENT, 'PYTHONPATH': str(tmp_path)},
        searchSpace={'strategy': {'_type': 'choice', '_value': ['random']}},
        classArgs={'recipe': 'digits', 'set': {**overrides(images), 'search.random_samples': 1}},
    ) as experiment:
        assert (tmp_path / 'late').exists()
        processes = [process.info for process in psutil.process_iter(['cmdline', 'environ'])]
        tuners = [process for process in processes if '--exp_params' in (process['cmdline'] or ())]
        mine = [process for process in tuners if str(experiment.folder) in (process['environ'] or {}).get('NNI_LOG_DIRECTORY', '')]
        assert len(mine) == 1  # the late one would fight with the other for the manager
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 300)
        assert [trial.key for trial in experiment.trials()] == ['select random 1.1', 'retrain random 1']
