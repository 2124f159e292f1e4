"""Explains in a few words why trials ended without a result, from their status and the end of their stderr."""

from __future__ import annotations

import re
from collections.abc import Iterable

import requests

from nni_darts.experiment.manager import Manager, TrialRecord

__all__ = ['Failures', 'reason']

_LONGEST = 300
_CRASHES = {
    'Aborted': 'SIGABRT',
    'Segmentation fault': 'SIGSEGV',
    'Bus error': 'SIGBUS',
    'Floating point exception': 'SIGFPE',
    'Floating-point exception': 'SIGFPE',
    'Illegal instruction': 'SIGILL',
}
"""The message that Python writes when a signal ends it → the name of that signal."""


def reason(status: str, stderr: str) -> str:
    """Returns the reason why a trial ended without a result.

    Args:
        status: the trial's status in NNI, such as ``FAILED``.
        stderr: the text of its standard error.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith('Error: '):
            return line.removeprefix('Error: ')[:_LONGEST]
        hung = re.fullmatch(r'Timeout \(([\d:.]+)\)!', line)
        if hung:
            return f'it hung: no progress for {hung[1]}, so it ended itself; stderr shows where it was stuck'
    for number, line in enumerate(lines):
        crash = line.removeprefix('Fatal Python error: ')
        if crash != line:
            said = f': {lines[number - 1]}' if number else ''
            return f'it crashed with {_CRASHES.get(crash, crash)}{said}'[:_LONGEST]
    if 'Traceback (most recent call last):' in lines:
        return f'it raised {lines[-1]}'[:_LONGEST]
    if status == 'USER_CANCELED':
        said = f'; the last line of its stderr: {lines[-1]}' if lines else ''
        return f'it was killed from outside by SIGKILL or SIGTERM, by hand or because memory ran out{said}'[:_LONGEST]
    if status == 'SYS_CANCELED':
        return 'NNI cancelled it: its machine was lost, or the experiment was stopped'
    return f'it ended as {status} without a result'


class Failures:
    """Remembers why trials ended without a result.

    Attributes:
        reasons: trial id → the reason.
        hopeless: ids of the trials that are not restarted: a training that diverged, a trial that the user killed in NNI's page or
            with nnictl, or a trial that ran longer than maxTrialDuration.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.hopeless: set[str] = set()

    def learn(self, failed: Iterable[TrialRecord], manager: Manager) -> bool:
        """Reads the stderr of failed trials not seen before.

        Args:
            failed: trials that ended without a result.
            manager: the experiment's manager.

        Returns:
            Whether one of the new trials is hopeless.
        """
        before = len(self.hopeless)
        for record in failed:
            if record.id not in self.reasons:
                ordered = _ordered(record.id, manager)
                try:
                    stderr = manager.trial_file(record.id, 'stderr')
                except requests.RequestException:
                    stderr = ''  # some training services do not return logs
                self.reasons[record.id] = ordered or reason(record.status, stderr)
                if ordered or 'has diverged' in self.reasons[record.id]:
                    self.hopeless.add(record.id)
        return len(self.hopeless) > before


def _ordered(trial_id: str, manager: Manager) -> str | None:
    """Returns why the manager itself ended a trial; None if it did not. Only its log distinguishes this from a process that was killed."""
    try:
        log = manager.log('nnimanager.log')
    except requests.RequestException:
        return None
    if f'User cancelTrialJob: {trial_id}' in log:
        return "it was killed by the user, in NNI's page or with nnictl trial kill; it is not started again"
    if f'Trial job {trial_id} has been canceled because it is over max trial duration' in log:
        return 'it ran longer than maxTrialDuration; it is not started again'
    return None
