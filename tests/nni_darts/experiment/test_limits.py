"""An experiment that NNI's own limits end."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest

from nni_darts.experiment.planner import TIMING
from tests.helpers.live import BIN, ENVIRONMENT, Experiment, check_logs, free_port, write_experiment
from tests.helpers.terminal import on_terminal
from tests.helpers.tiny import overrides, write_images

pytestmark = pytest.mark.nni


def test_a_limit_of_duration_ends_with_a_table(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path,
        maxExperimentDuration='45s',
        trialConcurrency=1,
        searchSpace={'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}, 'seed': {'_type': 'choice', '_value': [1, 2]}},
        classArgs={'recipe': 'digits', 'set': overrides(write_images(tmp_path / 'images.npz'))},
    )
    port, named = free_port(), tmp_path / 'id'
    command = [str(BIN / 'nni-darts'), 'launch', str(path), '--port', str(port), '--id-file', str(named), '--wait']
    try:
        with tempfile.TemporaryFile() as stdout:  # its results, and stderr on a terminal
            done = on_terminal(command, environment=ENVIRONMENT, stdout=stdout, seconds=240)
        experiment = Experiment(named.read_text().strip(), port)
        assert done.returncode == 0 and done.cursor, '\n'.join([done.stdout, *done.lines])
        assert experiment.manager.status() == 'DONE'
        finished = {trial.key for trial in experiment.trials() if trial.metric is not None}
        check_logs(experiment)
    finally:
        if named.exists():
            Experiment(named.read_text().strip(), port).stop()
    summary = json.loads((experiment.folder / 'log' / 'summary.json').read_text())
    states = {job['key']: job['state'] for job in summary['jobs']}
    assert finished and {key for key, state in states.items() if state == 'done'} == finished
    assert (
        summary['over']
        and {key for key, state in states.items() if state == 'waiting'} == set(summary['not_started']) == set(states) - finished
    )
    table = done.stdout[done.stdout.index('--------') :].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ['darts-1st', 'random']
    assert summary['plan'].startswith('Nothing was shortened: maxExperimentDuration: 45 s is too short for this experiment')
    assert {summary['recipe'][stage]['epochs'] for stage in ('search', 'retrain')} == {2} and summary['recipe']['select']['epochs'] == 1
    said = ' '.join([done.stdout, *done.lines]).split()  # on the terminal with breaks between words
    assert TIMING in ' '.join(said) and summary['plan'] in done.stdout
    sentence = f'(maxExperimentDuration, maxTrialNumber) was used up when {len(finished)} of {len(states)} known jobs were done.'
    assert sentence in done.stdout
    page = (experiment.folder / 'log' / 'summary.html').read_text()
    assert 'Finished' in page and 'Ended early:' in page and sentence in page
    for shown in ('loading torch', "starting NNI's manager", 'waiting for the tuner', 'search darts-1st 1 +━* *starting'):
        assert done.ever(shown), shown
    # Which epochs are seen depends on the machine: the experiment is looked at every few seconds.
    running = [line for line in done.ever('search darts-1st 1 ') if '━' in line]
    assert all(re.search(r' ━*╸?╺?━* *(starting +\d+ s|[12]/2 valid [ \d.]+ % +\d+ s( left)?)$', line) for line in running), running
    assert done.ever(r'0 of 10 trials done ━') and done.ever(r'1 of 10 trials done ━.* about \d+ (s|min) left')
    results = [line for line in done.stdout.splitlines() if line.startswith('  search ') or line.startswith('  select ')]
    assert len(results) == len(finished) and all(re.search(r': validation \d+\.\d\d %$', line) for line in results)
