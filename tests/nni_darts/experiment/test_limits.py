"""An experiment that NNI's own limits end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.nni_darts.experiment.live import BIN, ENVIRONMENT, Experiment, check_logs, free_port, write_experiment
from tests.nni_darts.tiny import overrides, write_images

pytestmark = pytest.mark.nni


def test_a_limit_of_duration_ends_with_a_table(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path,
        maxExperimentDuration='10s',
        trialConcurrency=1,
        searchSpace={'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}, 'seed': {'_type': 'choice', '_value': [1, 2]}},
        classArgs={'recipe': 'digits', 'set': overrides(write_images(tmp_path / 'images.npz'))},
    )
    port, named = free_port(), tmp_path / 'id'
    command = [str(BIN / 'nni-darts'), 'launch', str(path), '--port', str(port), '--id-file', str(named), '--wait']
    try:
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
        experiment = Experiment(named.read_text().strip(), port)
        assert done.returncode == 0, done.stdout + done.stderr
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
    assert [line.split()[0] for line in done.stdout.splitlines()[-4:-2]] == ['darts-1st', 'random']
    sentence = f'(maxExperimentDuration, maxTrialNumber) was used up when {len(finished)} of {len(states)} known jobs were done.'
    assert sentence in done.stdout
    page = (experiment.folder / 'log' / 'summary.html').read_text()
    assert 'Finished' in page and 'Ended early:' in page and sentence in page
