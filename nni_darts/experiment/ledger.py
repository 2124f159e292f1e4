"""The jobs that are done, running or given up, read from the manager's list of trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nni_darts.experiment.manager import FINISHED, TrialRecord

__all__ = ['Ledger', 'Standing']


@dataclass(frozen=True)
class Standing:
    """The jobs' state by key: final metrics, those at work, how often a trial ended without a result, those that did so too often.

    ``failed`` are the trials that ended without one.
    """

    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    failed: tuple[TrialRecord, ...] = ()


class Ledger:
    """Remembers only what the manager's list cannot tell: what was handed to NNI and is not listed yet, and when an end was first seen.

    Args:
        max_retries: how often a job is started again after a trial ended without a result.
        grace_seconds: how long after a trial's end its final metric may still arrive.
    """

    def __init__(self, max_retries: int, grace_seconds: float) -> None:
        self.max_retries = max_retries
        self.grace_seconds = grace_seconds
        self._handed_over: dict[str, int] = {}  # key → how many trials of it were listed then
        self._listed: Counter[str] = Counter()
        self._ended: dict[str, float] = {}  # trial id → when it was first seen without a result

    def submitted(self, key: str) -> None:
        """Notes that a job was handed to NNI."""
        self._handed_over[key] = self._listed[key]

    def unlisted(self) -> frozenset[str]:
        """Returns the jobs that were handed over but were not yet on the list when it was last read."""
        return frozenset(self._handed_over)

    def read(self, records: Sequence[TrialRecord], now: float, hopeless: Collection[str] = ()) -> Standing:
        """Takes in the manager's list at a time in seconds. A job of which a trial is ``hopeless`` (ids) is not started again."""
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
