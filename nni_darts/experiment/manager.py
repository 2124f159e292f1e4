"""A client for the part of NNI's REST interface that the tuner, the trials and the command line use."""

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
"""A file among the manager's logs. Each line is a time at which a tuner connected, in seconds since the epoch; the last tuner is active."""

ERROR = 'error.txt'
"""A file among the manager's logs. It holds the reason why the tuner ended the experiment."""

FINISHED = frozenset({'SUCCEEDED', 'FAILED', 'USER_CANCELED', 'SYS_CANCELED', 'EARLY_STOPPED'})
"""Statuses of a trial that no longer runs, whether it has a result or not."""

LIMITED = frozenset({'NO_MORE_TRIAL', 'DONE'})
"""Statuses of a manager that starts no more trials because its time or its number of trials is used up. With DONE, none is running."""

_TIMEOUT = 20
_ATTEMPTS = 10


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the manager lists it.

    Attributes:
        id: NNI's identifier.
        status: NNI's status, such as ``RUNNING``.
        parameters: the trial's parameters.
        metric: the final metric that it reported, or None.
        started, ended: times in seconds since the epoch, or None if the manager does not report them.
    """

    id: str
    status: str
    parameters: dict[str, Any]
    metric: dict[str, Any] | None
    started: float | None = field(default=None, compare=False)
    ended: float | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The key of the trial's job. The key in the metric, if there is one, takes precedence over the key in the parameters."""
        return str((self.metric or {}).get('key') or self.parameters.get('key', ''))

    @property
    def kind(self) -> Kind:
        """Stage and strategy of the trial's job."""
        return str(self.parameters['stage']), str(self.parameters['strategy'])

    @property
    def seconds(self) -> float | None:
        """Seconds between start and end; None if the manager does not report both."""
        return self.ended - self.started if self.started and self.ended else None


class Manager:
    """A client for the manager of one experiment.

    Args:
        address: ``host:port``, followed by NNI's URL prefix if any. It is no URL because NNI's JSON drops messages with ``//``.

    Every method raises ``requests.RequestException`` if the manager does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy is needed between the parts of an experiment
        # The manager closes connections that are idle for five seconds, often just when the tuner sends a request, so none is kept open.
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
        """Returns the experiment's profile; its configuration is under ``params``."""
        return self._get('experiment')

    def status(self) -> str:
        """Returns the status of the experiment: RUNNING, DONE, ERROR, …"""
        return str(self._get('check-status')['status'])

    def errors(self) -> list[str]:
        """Returns the errors that the manager reports."""
        return [str(error) for error in self._get('check-status').get('errors', [])]

    def trials(self) -> list[TrialRecord]:
        """Returns all trials that the manager lists."""
        return [record for record in map(_record, self._get('trial-jobs')) if record is not None]

    def trial(self, trial_id: str) -> dict[str, Any] | None:
        """Returns NNI's record of a trial's parameters, with ``parameter_id`` and ``parameters``; None if there is no record yet."""
        return _given(self._get(f'trial-jobs/{trial_id}'))

    def reported(self, trial_id: str) -> tuple[list[Any], bool]:
        """Returns a trial's intermediate results so far, and whether its final result has arrived.

        NNI's list of trials does not show a final metric before the trial has ended.
        """
        entries = self._get(f'metric-data/{trial_id}')
        return [_value(entry) for entry in entries if entry['type'] == 'PERIODICAL'], any(entry['type'] == 'FINAL' for entry in entries)

    def trial_file(self, trial_id: str, name: str) -> str:
        """Returns the text of a file that a trial on this machine has written.

        Args:
            trial_id: id of the trial.
            name: ``trial.log``, ``stdout`` or ``stderr``.
        """
        response = self._session.get(self._url(f'trial-file/{trial_id}/{name}'), timeout=_TIMEOUT)
        response.raise_for_status()
        return response.content.decode('utf-8', 'replace')

    def tuner_since(self) -> float:
        """Returns when the tuner connected, in seconds since the epoch; 0 if no tuner has connected."""
        try:
            return float(self.log(TUNER_SINCE).splitlines()[-1])
        except (ValueError, IndexError):
            return 0.0

    def log(self, name: str) -> str:
        """Returns the text of a file among the manager's logs; an empty string if there is no such file."""
        response = self._session.get(self._root() + f'logs/{name}', timeout=_TIMEOUT)
        found = response.ok and not response.headers.get('Content-Type', '').startswith('text/html')  # NNI's page: there is no such file
        return response.content.decode('utf-8', 'replace') if found else ''

    def document(self, name: str) -> dict[str, Any]:
        """Returns the contents of a JSON file among the manager's logs; an empty dictionary if there is none.

        The manager looks up the length of a file before it opens it. If the file is replaced in between, the answer has the wrong
        length, and the file is read again.

        Raises:
            requests.RequestException: if the manager does not answer, or does not return the whole document in any attempt.
        """
        for _ in range(_ATTEMPTS):
            with suppress(ValueError, requests.exceptions.ChunkedEncodingError):
                return dict(json.loads(self.log(name) or '{}'))
        raise requests.exceptions.InvalidJSONError(f'{name} could not be read as a whole in {_ATTEMPTS} attempts')

    def finish(self, submitted: int) -> None:
        """Ends the experiment once the submitted trials have ended, by setting the maximum number of trials: NNI ends in no other way.

        Args:
            submitted: number of trials submitted so far.
        """
        response = self._session.put(
            self._url('experiment'),
            params={'update_type': 'MAX_TRIAL_NUM'},
            json={'params': {'maxTrialNumber': submitted}},
            timeout=_TIMEOUT,
        )
        response.raise_for_status()


def bypass_proxy(*hosts: str) -> None:
    """Makes this process and its child processes connect to this machine and to the given hosts directly, without a proxy."""
    for name in ('no_proxy', 'NO_PROXY'):
        known = [host for host in os.environ.get(name, '').split(',') if host]
        os.environ[name] = ','.join(dict.fromkeys([*known, 'localhost', '127.0.0.1', *hosts]))


def tuner_starts(path: Path) -> list[float]:
    """Returns the times in the file ``TUNER_SINCE``; an empty list if there is no such file."""
    return [float(line) for line in path.read_text('utf-8').split()] if path.exists() else []


def _given(job: dict[str, Any]) -> dict[str, Any] | None:
    given = job.get('hyperParameters') or []
    return json.loads(given[0]) if given else None


def _value(entry: dict[str, Any]) -> Any:
    """Returns a metric's value, which NNI encodes as JSON twice."""
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
