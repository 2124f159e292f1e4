"""The state of the jobs (done, running, given up), read from the manager's list of trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nni_darts.experiment.manager import FINISHED, TrialRecord

__all__ = ['Ledger', 'Standing']


@dataclass(frozen=True)
class Standing:
    """The state of all jobs.

    Attributes:
        results: key of a job → its final metric.
        busy: keys of the jobs that are running or about to run.
        failures: key of a job → number of its trials that ended without a result.
        given_up: keys of the jobs that failed too often.
        failed: the trials that ended without a result.
    """

    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    failed: tuple[TrialRecord, ...] = ()


class Ledger:
    """Keeps track of what the manager's list does not show: jobs submitted but not listed yet, and when a trial's end was first seen.

    Args:
        max_retries: how many times a job is restarted after a trial ended without a result.
        grace_seconds: how long after a trial's end its final metric may still arrive.
    """

    def __init__(self, max_retries: int, grace_seconds: float) -> None:
        self.max_retries = max_retries
        self.grace_seconds = grace_seconds
        self._handed_over: dict[str, int] = {}  # key → number of its trials that were listed when it was handed over
        self._listed: Counter[str] = Counter()
        self._ended: dict[str, float] = {}  # trial id → when it was first seen to have ended without a result

    def submitted(self, key: str) -> None:
        """Notes that a job was handed to NNI."""
        self._handed_over[key] = self._listed[key]

    def unlisted(self) -> frozenset[str]:
        """Returns the jobs that were handed over but were not yet on the list when it was last read."""
        return frozenset(self._handed_over)

    def read(self, records: Sequence[TrialRecord], now: float, hopeless: Collection[str] = ()) -> Standing:
        """Reads the manager's list of trials.

        Args:
            records: the manager's list.
            now: the present time, in seconds.
            hopeless: ids of trials whose jobs are not restarted.
        """
        records = [record for record in records if record.key]
        self._listed = Counter(record.key for record in records)
        self._handed_over = {key: count for key, count in self._handed_over.items() if self._listed[key] <= count}
        results = {record.key: record.metric for record in records if record.metric is not None}
        busy = set(self._handed_over)
        failed: list[TrialRecord] = []
        for record in records:
            if record.status not in FINISHED:
                busy.add(record.key)
            elif record.metric is None:
                if now - self._ended.setdefault(record.id, now) < self.grace_seconds:
                    busy.add(record.key)
                else:
                    failed.append(record)
        failures = Counter(record.key for record in failed)
        lost = {record.key for record in failed if failures[record.key] > self.max_retries or record.id in hopeless}
        return Standing(results, frozenset(busy - results.keys()), failures, frozenset(lost - results.keys() - busy), tuple(failed))
