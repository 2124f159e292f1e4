"""The part of NNI's REST interface that the tuner, the trials and the command line read."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

__all__ = ['ERROR', 'FINISHED', 'LIMITED', 'TUNER_SINCE', 'Kind', 'Manager', 'TrialRecord', 'bypass_proxy', 'tuner_starts']

Kind = tuple[str, str]
"""Stage and strategy of a job."""

TUNER_SINCE = 'tuner.txt'
"""A file among the manager's logs: when a tuner was connected, in seconds since the epoch; a line for each, the last is at work."""

ERROR = 'error.txt'
"""A file among the manager's logs: why the tuner ended the experiment, in its own words."""

FINISHED = frozenset({'SUCCEEDED', 'FAILED', 'USER_CANCELED', 'SYS_CANCELED', 'EARLY_STOPPED'})
"""States in which a trial does not run any more; whether it has a result is another matter."""

LIMITED = frozenset({'NO_MORE_TRIAL', 'DONE'})
"""States in which the manager starts no more trials: its time or its number of trials is used up. DONE: none runs, either."""

_TIMEOUT = 20
_ATTEMPTS = 10


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the manager has it on record: what it was given, its state, the final metric it reported (or None).

    ``started`` and ``ended`` are in seconds since the epoch, None where the manager does not say.
    """

    id: str
    status: str
    parameters: dict[str, Any]
    metric: dict[str, Any] | None
    started: float | None = field(default=None, compare=False)
    ended: float | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The key of its job; the metric's own word counts most."""
        return str((self.metric or {}).get('key') or self.parameters.get('key', ''))

    @property
    def kind(self) -> Kind:
        """Stage and strategy of its job."""
        return str(self.parameters['stage']), str(self.parameters['strategy'])

    @property
    def seconds(self) -> float | None:
        """Seconds between start and end; None where the manager does not say."""
        return self.ended - self.started if self.started and self.ended else None


class Manager:
    """Client of one experiment's manager.

    Args:
        address: ``host:port``, with NNI's url prefix behind it if it has one. Not a URL: NNI's JSON loses messages with ``//``.

    Every method raises ``requests.RequestException`` if the manager does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy lies between an experiment and its own parts
        # The manager closes connections that have been idle for five seconds, often just when the tuner asks again: none is kept.
        self._session.headers['Connection'] = 'close'

    def _root(self) -> str:
        host, _, prefix = self.address.partition('/')
        return f'http://{host}/{prefix + "/" if prefix else ""}'

    def _url(self, path: str) -> str:
        return self._root() + f'api/v1/nni/{path}'

    def _get(self, path: str) -> Any:
        response = self._session.get(self._url(path), timeout=_TIMEOUT)
        response.raise_for_status()
        return response.json()

    def experiment(self) -> dict[str, Any]:
        """The experiment's profile; its configuration is under ``params``."""
        return self._get('experiment')

    def status(self) -> str:
        """RUNNING, DONE, ERROR, …"""
        return str(self._get('check-status')['status'])

    def errors(self) -> list[str]:
        """Returns the errors that the manager reports."""
        return [str(error) for error in self._get('check-status').get('errors', [])]

    def trials(self) -> list[TrialRecord]:
        """All trials on record."""
        return [record for record in map(_record, self._get('trial-jobs')) if record is not None]

    def trial(self, trial_id: str) -> dict[str, Any] | None:
        """Returns a trial's parameters: NNI's record with ``parameter_id`` and ``parameters``; None while there is none."""
        return _given(self._get(f'trial-jobs/{trial_id}'))

    def reported(self, trial_id: str) -> tuple[list[Any], bool]:
        """Returns a trial's intermediate results so far, and whether its final result has arrived.

        The list of trials shows a final metric only once the trial has ended.
        """
        entries = self._get(f'metric-data/{trial_id}')
        return [_value(entry) for entry in entries if entry['type'] == 'PERIODICAL'], any(entry['type'] == 'FINAL' for entry in entries)

    def trial_file(self, trial_id: str, name: str) -> str:
        """Returns what a trial on this machine has written.

        Args:
            trial_id: of the trial.
            name: ``trial.log``, ``stdout`` or ``stderr``.
        """
        response = self._session.get(self._url(f'trial-file/{trial_id}/{name}'), timeout=_TIMEOUT)
        response.raise_for_status()
        return response.content.decode('utf-8', 'replace')

    def tuner_since(self) -> float:
        """When the tuner was connected, in seconds since the epoch; 0 if no tuner ever was."""
        try:
            return float(self.log(TUNER_SINCE).splitlines()[-1])
        except (ValueError, IndexError):
            return 0.0

    def log(self, name: str) -> str:
        """The text of a file among the manager's logs; '' if there is none."""
        response = self._session.get(self._root() + f'logs/{name}', timeout=_TIMEOUT)
        found = response.ok and not response.headers.get('Content-Type', '').startswith('text/html')  # NNI's page: there is no such file
        return response.content.decode('utf-8', 'replace') if found else ''

    def document(self, name: str) -> dict[str, Any]:
        """Returns the contents of a JSON file among the manager's logs; an empty dictionary if there is none.

        The manager looks up the length of a file before it opens it. If the file is replaced in between, the answer has the wrong
        length, and the file is read again.

        Raises:
            requests.RequestException: if the manager does not answer, or never with a whole document.
        """
        for _ in range(_ATTEMPTS):
            with suppress(ValueError, requests.exceptions.ChunkedEncodingError):
                return dict(json.loads(self.log(name) or '{}'))
        raise requests.exceptions.InvalidJSONError(f'{name} could not be read as a whole in {_ATTEMPTS} attempts')

    def finish(self, submitted: int) -> None:
        """Ends the experiment once the submitted trials are through: NNI ends only when a maximum number of trials is reached."""
        response = self._session.put(
            self._url('experiment'),
            params={'update_type': 'MAX_TRIAL_NUM'},
            json={'params': {'maxTrialNumber': submitted}},
            timeout=_TIMEOUT,
        )
        response.raise_for_status()


def bypass_proxy(*hosts: str) -> None:
    """Has this process, and those that it starts, talk to this machine and to the given hosts directly, whatever proxy is set."""
    for name in ('no_proxy', 'NO_PROXY'):
        known = [host for host in os.environ.get(name, '').split(',') if host]
        os.environ[name] = ','.join(dict.fromkeys([*known, 'localhost', '127.0.0.1', *hosts]))


def tuner_starts(path: Path) -> list[float]:
    """Returns the contents of ``TUNER_SINCE``; nothing if there is no such file."""
    return [float(line) for line in path.read_text('utf-8').split()] if path.exists() else []


def _given(job: dict[str, Any]) -> dict[str, Any] | None:
    given = job.get('hyperParameters') or []
    return json.loads(given[0]) if given else None


def _value(entry: dict[str, Any]) -> Any:
    """A metric's value, which NNI wraps in JSON twice."""
    value = json.loads(entry['data'])
    return json.loads(value) if isinstance(value, str) else value


def _record(job: dict[str, Any]) -> TrialRecord | None:
    given = _given(job)
    if given is None:
        return None
    metric = None
    for value in map(_value, job.get('finalMetricData') or []):
        metric = value if isinstance(value, dict) else metric
    parameters = given.get('parameters')
    started, ended = (job[name] / 1000 if job.get(name) else None for name in ('startTime', 'endTime'))
    identifier = job.get('trialJobId') or job['id']
    return TrialRecord(identifier, job['status'], parameters if isinstance(parameters, dict) else {}, metric, started, ended)
