from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from nni_darts.experiment.failures import Failures, reason
from nni_darts.experiment.ledger import Ledger
from nni_darts.experiment.tuner import SearchAndRetrain
from tests.nni_darts.experiment.test_protocol import record

TRACE = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: no such thing\n'
DIVERGED = 'Error: the training loss is nan in step 3 of epoch 1 (step 3 in all) at learning rate 9: the training has diverged; lower it'


@pytest.mark.parametrize(
    ('status', 'stderr', 'why'),
    [
        ('FAILED', f'epoch 1/2\n{DIVERGED}\n', DIVERGED.removeprefix('Error: ')),
        ('FAILED', 'Timeout (0:30:00)!\nThread 0x1 (most recent call first):\n  File "x"\n', 'it hung: no progress for 0:30:00'),
        ('FAILED', TRACE, 'it raised ValueError: no such thing'),
        ('USER_CANCELED', 'epoch 1/2  train loss 2\n', 'it was killed from outside by SIGKILL or SIGTERM'),
        (
            'USER_CANCELED',
            'corrupted double-linked list\n',
            'it was killed from outside by SIGKILL or SIGTERM, by hand or because '
            'memory ran out; the last line of its stderr: corrupted double-linked list',
        ),
        (
            'USER_CANCELED',
            'corrupted double-linked list\nFatal Python error: Aborted\n\nThread 0x1:\n  File "x"\n',
            'it crashed with SIGABRT: corrupted double-linked list',
        ),
        ('USER_CANCELED', 'Fatal Python error: Segmentation fault\n\nThread 0x1:\n', 'it crashed with SIGSEGV'),
        ('SYS_CANCELED', '', 'NNI cancelled it'),
        ('SUCCEEDED', '', 'it ended as SUCCEEDED without a result'),
    ],
)
def test_reasons(status: str, stderr: str, why: str) -> None:
    assert reason(status, stderr).startswith(why)


class Logs:
    """The part of the manager that says what a trial has written."""

    def __init__(self, **texts: str) -> None:
        self.manager_log = texts.pop('manager_log', '')
        self.texts = texts
        self.asked: list[str] = []

    def log(self, name: str) -> str:
        return self.manager_log if name == 'nnimanager.log' else ''

    def trial_file(self, trial_id: str, name: str) -> str:
        assert name == 'stderr'
        self.asked.append(trial_id)
        if trial_id not in self.texts:
            raise requests.ConnectionError
        return self.texts[trial_id]


def test_what_would_end_the_same_way_is_not_started_again() -> None:
    records = [record('a', 'FAILED', 'one'), record('b', 'FAILED', 'two'), record('c', 'FAILED', 'three')]
    ledger, failures, logs = Ledger(max_retries=2, grace_seconds=5), Failures(), Logs(a=DIVERGED, b=TRACE)
    ledger.read(records, 0)
    standing = ledger.read(records, 6)
    assert not standing.given_up and standing.failed == tuple(records)
    assert failures.learn(standing.failed, logs)  # type: ignore[arg-type]
    assert not failures.learn(standing.failed, logs)  # type: ignore[arg-type]
    assert logs.asked == ['a', 'b', 'c']  # once each
    assert failures.reasons['c'] == 'it ended as FAILED without a result'
    assert ledger.read(records, 7, failures.hopeless).given_up == {'one'}


def test_what_the_manager_was_told_to_end_is_not_started_again() -> None:
    log = 'User cancelTrialJob: a\nTrial job b has been canceled because it is over max trial duration.\n'
    failures, logs = Failures(), Logs(a='', b='', c='', manager_log=log)
    failed = [record('a', 'USER_CANCELED', 'one'), record('b', 'EARLY_STOPPED', 'two'), record('c', 'USER_CANCELED', 'three')]
    assert failures.learn(failed, logs)  # type: ignore[arg-type]
    assert failures.hopeless == {'a', 'b'}
    assert failures.reasons['a'].startswith('it was killed by the user')
    assert failures.reasons['b'].startswith('it ran longer than maxTrialDuration')
    assert failures.reasons['c'].startswith('it was killed from outside')


HANGS = """
import sys, time
from nni_darts.experiment.watchdog import Watchdog
watchdog = Watchdog(1.0)
for _ in range(6):
    time.sleep(0.4)
    watchdog.progress()
print('worked', flush=True)
if sys.argv[1] == 'stop':
    watchdog.stop()
    time.sleep(2)
else:
    import threading
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""


@pytest.mark.parametrize('how', ['lock', 'stop'])
def test_a_process_that_hangs_ends_itself(how: str) -> None:
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', HANGS, how], capture_output=True, text=True, timeout=50)
    assert done.stdout == 'worked\n'
    assert done.returncode == (0 if how == 'stop' else 1)
    if how != 'stop':
        assert reason('FAILED', done.stderr).startswith('it hung: no progress for 0:00:01')
        assert 'File "<string>", line' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ({'gpus': 2}, 'classArgs.gpus must be 0 or 1, not 2'),
        ({'gpus': 1, 'set': {'devices': 2}}, 'classArgs.gpus must be 0 or 2, not 1'),
        ({'gpus': -1}, 'classArgs.gpus must be a whole number from 0'),
        ({'trials_per_gpu': 0}, 'classArgs.trials_per_gpu must be a whole number from 1'),
        ({'stall_minutes': 0}, 'classArgs.stall_minutes must be a number of minutes above 0'),
        ({'stall_minutes': 'x'}, 'classArgs.stall_minutes'),
        ({'gpus': 0, 'set': {'accelerator': 'gpu'}}, 'classArgs.gpus is 0'),
    ],
)
def test_wrong_settings_are_one_sentence(arguments: dict, names: str) -> None:
    error = SearchAndRetrain(**arguments).error
    assert error is not None and names in error and '\n' not in error
