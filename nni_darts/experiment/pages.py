"""The pages of an experiment under NNI's ``/logs/``: the summary, one for each search and training, which is updated while it runs, and
one that opens NNI's list of trials.

Pages are built from the trials' intermediate results, so it does not matter on which machine a trial runs. The page of a training on
this machine is built from the trial's output folder, which also has the confusion matrix and pictures of misclassified images.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import requests

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.manager import TUNER_SINCE, Manager, TrialRecord, tuner_starts
from nni_darts.experiment.protocol import Job, Protocol
from nni_darts.genotypes import genotype_from_code
from nni_darts.report.records import unpack
from nni_darts.report.searches import search_data, write_search
from nni_darts.report.summary import PAGE, Observed, summarize, write_summary
from nni_darts.report.trainings import TRAINING, AboutTraining, training_data, write_training
from nni_darts.report.trials import write_trials
from nni_darts.strategies.registry import file_name

__all__ = ['Pages', 'page_name']

_logger = logging.getLogger(__name__)

_LOCAL_TRIALS = Path('environments', 'local-env', 'trials')
"""The folder, inside the experiment's folder, that has the output folders of trials on this machine."""


class Pages:
    """Keeps the pages in a folder up to date.

    Args:
        folder: the folder that NNI serves under ``/logs/``.
        manager: the manager from which the trials' results are read.

    Example:
        ``Pages(Path(os.environ['NNI_LOG_DIRECTORY']), manager).begin(protocol)``
    """

    def __init__(self, folder: Path, manager: Manager) -> None:
        self._folder = folder
        self._manager = manager
        self._finished: set[str] = set()  # ids of trials whose page is final
        self._epochs: dict[str, list[dict[str, Any]]] = {}  # trial id → the measurements of its epochs

    def begin(self, protocol: Protocol) -> None:
        """Writes the page that opens NNI's list of trials. That page shows no results itself."""
        self._guarded('trials', lambda: write_trials(self._folder, protocol.recipe.metric, PAGE))

    def update(
        self,
        protocol: Protocol,
        jobs: Sequence[Job],
        standing: Standing,
        records: Sequence[TrialRecord],
        reasons: Mapping[str, str],
        *,
        over: bool,
        plan: str = '',
    ) -> None:
        """Writes the pages that have changed. A page that cannot be written is skipped with a warning, so that the experiment continues.

        The arguments are those of :func:`summarize`.
        """
        latest = {record.key: record for record in records if record.key}  # the last trial of a job that was restarted
        known = [job for job in jobs if job.key in latest]
        for job in known:
            record, result = latest[job.key], standing.results.get(job.key)
            if record.id not in self._finished:
                self._guarded(job.key, partial(self._write, protocol, job, record.id, result))
        named = {job.key: page_name(job) + '.html' for job in known}
        epochs = {job.key: self._epochs.get(latest[job.key].id, []) for job in known}
        starts = tuner_starts(self._folder / TUNER_SINCE)
        self._guarded(
            'summary',
            lambda: write_summary(
                self._folder, summarize(protocol, jobs, standing, records, Observed(named, reasons, epochs, starts, plan), over=over)
            ),
        )

    def _write(self, protocol: Protocol, job: Job, trial_id: str, result: Mapping[str, Any] | None) -> None:
        """Writes the page of one trial, including its result if it has one."""
        reported, _ = self._manager.reported(trial_id)
        measured = [unpack(value) for value in reported if isinstance(value, Mapping)]
        self._epochs[trial_id] = _numbers(measured)
        over, recipe = result is not None, protocol.recipe
        if job.stage == 'search':
            data = search_data(measured, strategy=job.strategy, seed=job.seed, recipe=recipe.name, metric=recipe.metric.name, over=over)
            write_search(self._folder, page_name(job), data, up=PAGE)
        else:
            about = AboutTraining(job.stage, job.seed, recipe.name, recipe.metric.name, genotype_from_code(job.arch))
            data = self._local_training(trial_id, over=over) or training_data(
                measured, about, over=over, result=_result(protocol, job, result)
            )
            write_training(self._folder, page_name(job), {**data, 'strategy': job.strategy, 'cell': job.cell}, up=PAGE)
        if result is not None:
            self._finished.add(trial_id)

    def _local_training(self, trial_id: str, *, over: bool) -> dict[str, Any] | None:
        """Reads the data of a training's page from the output folder of a trial on this machine.

        Args:
            trial_id: id of the trial.
            over: whether the training has ended.

        Returns:
            The page's data; None if there is no such file, or if the training has ended but the file does not say so yet.
        """
        path = self._folder.parent / _LOCAL_TRIALS / trial_id / f'{TRAINING}.json'
        if not path.is_file():
            return None
        data = json.loads(path.read_text('utf-8'))
        return data if data['over'] or not over else None

    def _guarded(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except (requests.RequestException, OSError, ValueError, KeyError) as error:
            _logger.warning('the page of %s was not written: %r', what, error)


def page_name(job: Job) -> str:
    """Returns the name of a trial's page and data, without the suffix."""
    part = [] if job.part is None else [str(job.part[1])]
    return '-'.join([job.stage, file_name(job.strategy), str(job.seed), *([str(job.cell)] if job.cell else []), *part])


def _result(protocol: Protocol, job: Job, result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns a final metric under the names that it has in the trial's ``result.json``."""
    if result is None:
        return None
    metric, found = protocol.recipe.metric, dict(result)
    default = found.pop('default')
    # If a recipe holds out no data, the default metric is measured on test data.
    return found if metric.of(found, 'test') == default else {**found, f'valid_{metric.name}': default}


def _numbers(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the measurements of each epoch, in order. If an epoch was reported twice, the later measurements count."""
    by_epoch = {record['epoch']: record for record in measured if 'epoch' in record}
    return [
        {name: value for name, value in record.items() if isinstance(value, (int, float)) and name != 'default'}
        for _, record in sorted(by_epoch.items())
    ]
