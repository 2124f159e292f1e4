"""The experiments of this user, read from NNI's list and from their folders. Imports neither NNI nor torch, so that it is fast."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nni_darts.errors import InputError
from nni_darts.experiment.manager import ERROR
from nni_darts.experiment.nnictl import check_known, is_manager, listed
from nni_darts.report.summary import DATA, PAGE

__all__ = ['ExperimentRecord', 'State', 'chosen', 'experiments', 'named', 'read_summary']

State = Literal['running', 'finished', 'error', 'stopped', 'died']


@dataclass(frozen=True)
class ExperimentRecord:
    """An experiment that was started on this machine.

    Attributes:
        id: NNI's identifier.
        name: name in its YAML file; may be empty.
        state: ``running``; ``finished``, with all work done or a limit used up; ``error``; ``stopped`` by the user; ``died``, if its
            manager ended without having been stopped.
        port: port of NNI's page; None if the manager is not running.
        started: when it was last started or resumed.
        folder: folder of its files.

    Example:
        >>> ExperimentRecord('abc', 'digits', 'running', 8080, None, Path('abc')).summary_address
        'http://localhost:8080/logs/summary.html'
    """

    id: str
    name: str
    state: State
    port: int | None
    started: datetime | None
    folder: Path

    @property
    def resumable(self) -> bool:
        """Whether there is work left that ``nni-darts resume`` continues."""
        return self.state == 'error' or (self.port is None and self.state in ('stopped', 'died'))

    @property
    def page(self) -> Path:
        """The file of the summary page."""
        return self.folder / 'log' / PAGE

    @property
    def summary_address(self) -> str:
        """The address of the summary page: of the manager's page, or of the file if the manager is not running."""
        return self.page.absolute().as_uri() if self.port is None else f'http://localhost:{self.port}/logs/{PAGE}'

    @property
    def nni_address(self) -> str | None:
        """The address of NNI's page; None if the manager is not running."""
        return None if self.port is None else f'http://localhost:{self.port}'

    def reason(self) -> str:
        """Returns why the tuner ended the experiment; '' if it did not."""
        try:
            return (self.folder / 'log' / ERROR).read_text('utf-8').strip()
        except OSError:
            return ''

    def summary(self) -> dict[str, Any] | None:
        """Returns the data of the summary page; None if there is none yet, or the experiment does not use this package."""
        return read_summary(self.folder)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Returns the summary in the folder of an experiment; None if there is none."""
    try:
        found = json.loads((folder / 'log' / DATA).read_text('utf-8'))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and 'strategies' in found else None


def experiments(home: Path | None = None) -> list[ExperimentRecord]:
    """Returns all experiments in NNI's list that have had a manager, in the order of their start.

    Args:
        home: folder of the list; by default the user's ``nni-experiments``.
    """
    home = home or Path.home() / 'nni-experiments'
    # The list also has searches in Python (NasExperiment), which have no page.
    entries = [(identifier, entry) for identifier, entry in listed(home).items() if 'retiarii' not in (entry.get('tag') or [])]
    return [_record(*item, home) for item in sorted(entries, key=lambda item: item[1].get('startTime') or 0)]


def named(identifier: str, home: Path | None = None) -> ExperimentRecord:
    """Returns the experiment with an id.

    Raises:
        InputError: if there is no such experiment.
    """
    check_known(identifier, home)
    return _record(identifier, listed(home)[identifier], home or Path.home() / 'nni-experiments')


def chosen(
    identifier: str | None,
    suits: Callable[[ExperimentRecord], bool] = lambda record: True,
    what: str = 'experiment',
    *,
    alone: bool = False,
    home: Path | None = None,
) -> ExperimentRecord:
    """Returns the experiment that a command refers to: the one with the id, or else the last one started that suits.

    Args:
        identifier: id of the experiment, or None.
        suits: tells which experiments may be chosen if no id is given.
        what: a description of such an experiment, for the message if there is none.
        alone: whether to refuse a choice between several experiments, because a mistake would be costly.

    Raises:
        InputError: if no experiment suits, or if ``alone`` and several do.
    """
    if identifier is not None:
        return named(identifier, home)
    found = [record for record in experiments(home) if suits(record)]
    if not found:
        raise InputError(f'There is no {what}; nni-darts list shows all experiments.')
    if alone and len(found) > 1:
        raise InputError(
            f'There are {len(found)} experiments to choose from: {", ".join(record.id for record in found)}. Name one of them.'
        )
    return found[-1]


def _record(identifier: str, entry: Mapping[str, Any], home: Path) -> ExperimentRecord:
    folder = Path(os.path.expanduser(entry.get('logDir') or home)) / identifier
    alive = entry.get('status') != 'STOPPED' and is_manager(entry.get('pid'), identifier)
    return ExperimentRecord(
        identifier,
        entry.get('experimentName') or '',
        _state(str(entry.get('status')), folder, alive),
        entry.get('port') if alive else None,
        _date(entry.get('startTime')),
        folder,
    )


def _date(milliseconds: float | None) -> datetime | None:
    """Returns the date of a number of milliseconds since the epoch; None for None."""
    try:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000)
    except (ValueError, OverflowError, OSError):
        return None


def _state(status: str, folder: Path, alive: bool) -> State:
    summary = read_summary(folder)
    if status == 'ERROR' or (folder / 'log' / ERROR).is_file():
        return 'error'
    if summary is not None and summary.get('over'):
        return 'finished'
    if alive:
        return 'finished' if status == 'DONE' else 'running'
    return 'stopped' if status == 'STOPPED' else 'died'
