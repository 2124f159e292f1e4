"""Why trials ended without a result, from their state and the end of their stderr, in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterable

import requests

from nni_darts.experiment.manager import Manager, TrialRecord

__all__ = ['Failures', 'reason']

_LONGEST = 300


def reason(status: str, stderr: str) -> str:
    """What happened to a trial that ended in a state without a result."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith('Error: '):
            return line.removeprefix('Error: ')[:_LONGEST]
        hung = re.fullmatch(r'Timeout \(([\d:.]+)\)!', line)
        if hung:
            return f'it hung: no progress for {hung[1]}, so it ended itself; stderr says where it stood'
    if 'Traceback (most recent call last):' in lines:
        return f'it raised {lines[-1]}'[:_LONGEST]
    if status == 'USER_CANCELED':
        return 'it was killed from outside: by hand, or because memory ran out'
    if status == 'SYS_CANCELED':
        return 'NNI cancelled it: its machine was lost, or the experiment was stopped'
    return f'it ended as {status} without a result'


class Failures:
    """Remembers why trials ended without a result.

    Attributes:
        reasons: trial id → why.
        hopeless: ids of those that would end the same way again: a training that diverged.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.hopeless: set[str] = set()

    def learn(self, failed: Iterable[TrialRecord], manager: Manager) -> bool:
        """Asks for the stderr of trials not seen before; whether one of them is hopeless."""
        before = len(self.hopeless)
        for record in failed:
            if record.id not in self.reasons:
                try:
                    stderr = manager.stderr(record.id)
                except requests.RequestException:
                    stderr = ''  # some services bring no logs back
                self.reasons[record.id] = reason(record.status, stderr)
                if 'has diverged' in self.reasons[record.id]:
                    self.hopeless.add(record.id)
        return len(self.hopeless) > before
