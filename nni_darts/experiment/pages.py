"""The pages of an experiment under NNI's ``/logs/``: the summary, and one for each search as it happens.

What a search's page shows is read from its trial's intermediate results, so it makes no difference on which machine the trial runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.manager import TUNER_SINCE, Manager, TrialRecord, tuner_starts
from nni_darts.experiment.protocol import Job, Protocol
from nni_darts.report.records import unpack
from nni_darts.report.searches import search_data, write_search
from nni_darts.report.summary import PAGE, summarize, write_summary

__all__ = ['Pages']

_logger = logging.getLogger(__name__)


class Pages:
    """Keeps the pages in a folder up to date.

    Args:
        folder: what NNI serves under ``/logs/``.
        manager: where the trials' results are.
    """

    def __init__(self, folder: Path, manager: Manager) -> None:
        self._folder = folder
        self._manager = manager
        self._finished: set[str] = set()  # keys of searches whose page does not change any more

    def update(
        self,
        protocol: Protocol,
        jobs: Sequence[Job],
        standing: Standing,
        records: Sequence[TrialRecord],
        reasons: Mapping[str, str],
        *,
        over: bool,
    ) -> None:
        """Writes what has changed. A page that cannot be written takes nothing else with it: pages are not what an experiment is for.

        Arguments as for :func:`summarize`.
        """
        latest = {record.key: record for record in records if record.key}  # of a job that was started again the last trial
        searches = [job for job in jobs if job.stage == 'search' and job.key in latest]
        for job in searches:
            if job.key not in self._finished:
                self._guarded(job.key, lambda job=job: self._search(protocol, job, latest[job.key].id, job.key in standing.results))
        named = {job.key: page_name(job) + '.html' for job in searches}
        self._guarded(
            'summary',
            lambda: write_summary(
                self._folder,
                summarize(protocol, jobs, standing, records, named, reasons, over=over, starts=tuner_starts(self._folder / TUNER_SINCE)),
            ),
        )

    def _search(self, protocol: Protocol, job: Job, trial_id: str, over: bool) -> None:
        reported, _ = self._manager.reported(trial_id)
        measured = [unpack(value) for value in reported if isinstance(value, Mapping)]
        about: dict[str, Any] = {'recipe': protocol.recipe.name, 'metric': protocol.recipe.metric.name}
        data = search_data(measured, strategy=job.strategy, seed=job.seed, over=over, **about)
        write_search(self._folder, page_name(job), data, up=PAGE)
        if over:
            self._finished.add(job.key)

    def _guarded(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except (requests.RequestException, OSError, ValueError, KeyError) as error:
            _logger.warning('the page of %s was not written: %r', what, error)


def page_name(job: Job) -> str:
    """Of a search's page and data, without the suffix. A ``+`` would be a space to some web servers."""
    return f'search-{job.strategy.replace("+", "-")}-{job.seed}'
