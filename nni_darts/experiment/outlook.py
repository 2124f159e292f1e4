"""The progress of a running experiment and its remaining time, read from its manager. Imports no torch."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import requests

from nni_darts.experiment.arguments import is_local
from nni_darts.experiment.manager import FINISHED, Kind, Manager, TrialRecord
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import Metric
from nni_darts.report.summary import DATA

__all__ = ['Observer', 'Outlook', 'RunningTrial', 'Work', 'seconds_left']


@dataclass(frozen=True)
class RunningTrial:
    """A running trial.

    Attributes:
        key: key of its job, such as ``search darts-2nd 1``.
        metric: the metric of its recipe.
        elapsed: seconds since it was started.
        epoch: number of finished epochs.
        of: total number of epochs; 0 before the first epoch is finished.
        value: its latest metric, on validation data if ``validated``, else on training data; None before the first epoch is finished.
        left: seconds until its last epoch is finished; None if that is not known yet.
        activity: the lengthy task that it reports before the first epoch, with its approximate duration; '' if there is none.

    Example:
        >>> RunningTrial('search darts-2nd 1', ACCURACY, elapsed=40.0, epoch=3, of=8, value=0.92, left=25.0).epoch
        3
    """

    key: str
    metric: Metric
    elapsed: float
    epoch: int = 0
    of: int = 0
    value: float | None = None
    validated: bool = True
    left: float | None = None
    activity: str = ''


@dataclass(frozen=True)
class Outlook:
    """The state of an experiment at one moment.

    Attributes:
        at: that moment, in seconds of ``time.monotonic``.
        running: the running trials.
        finished: trials that no longer run, with or without a result.
        done: number of jobs with a result.
        given_up: number of jobs that failed too often.
        expected: total number of jobs at the end of the experiment; 0 if the tuner has not reported it yet.
        left: seconds until the end of the experiment; None if there is nothing yet to estimate it from.
        plan: a sentence about the plan for an experiment with a time limit; '' if it has none.

    Example:
        >>> Outlook(at=0.0, done=3, expected=10).running
        ()
    """

    at: float
    running: tuple[RunningTrial, ...] = ()
    finished: tuple[TrialRecord, ...] = ()
    done: int = 0
    given_up: int = 0
    expected: int = 0
    left: float | None = None
    plan: str = ''


@dataclass(frozen=True)
class Work:
    """The jobs of an experiment and the durations known so far.

    Attributes:
        pending: stage and strategy → number of jobs that have not been started.
        taken: stage and strategy → durations of trials in seconds, measured or, for running trials, estimated.
        running: (stage and strategy, seconds elapsed, seconds left or None) of each running trial.
        epochs: stage → epochs in the recipe.
        concurrency: number of concurrent trials.

    Example:
        >>> work = Work({('select', 'random'): 4}, {('select', 'random'): [10.0]}, (), {'select': 8}, concurrency=2)
        >>> seconds_left(work)
        20.0
    """

    pending: Mapping[Kind, int]
    taken: Mapping[Kind, Sequence[float]]
    running: Sequence[tuple[Kind, float, float | None]]
    epochs: Mapping[str, int]
    concurrency: int

    def cost(self, kind: Kind) -> float | None:
        """Returns the estimated seconds of a job; None if nothing is known yet.

        The estimate is the mean over jobs of the same stage and strategy, or else over jobs of the same stage, or else it follows from
        the duration of an epoch in other stages.
        """
        stage, _ = kind
        of_stage: dict[str, list[float]] = {}
        for (other, _), seconds in self.taken.items():
            of_stage.setdefault(other, []).extend(seconds)
        found = self.taken.get(kind) or of_stage.get(stage)
        if found:
            return fmean(found)
        rates = [fmean(seconds) / max(1, self.epochs[other]) for other, seconds in of_stage.items() if seconds]
        return fmean(rates) * self.epochs[stage] if rates else None


def seconds_left(work: Work) -> float | None:
    """Returns the estimated seconds until all work is done; None if there is nothing yet to estimate them from.

    The work is assumed to be spread evenly over the concurrent trials, but the stages of a strategy follow each other.
    """
    total, longest = 0.0, 0.0
    for kind, elapsed, left in work.running:
        if left is None:
            cost = work.cost(kind)
            if cost is None:
                return None
            left = max(0.0, cost - elapsed)
        total += left
        longest = max(longest, left)
    chains: dict[str, float] = {}
    for (stage, strategy), count in work.pending.items():
        if count:
            cost = work.cost((stage, strategy))
            if cost is None:
                return None
            total += count * cost
            chains[strategy] = chains.get(strategy, 0.0) + cost
    return max(total / max(1, work.concurrency), longest + max(chains.values(), default=0.0) if chains else longest)


class Observer:
    """Reads the state of an experiment repeatedly, with two requests each time, and one or two more for each running trial.

    Args:
        manager: manager of the experiment.

    Example:
        >>> Observer(Manager('localhost:8080')).look().expected
        10
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._concurrency = 0
        self._local = False  # whether NNI serves the files that trials have written
        self._metric: Metric | None = None  # the metric of all trials
        self._reported: dict[str, tuple[int, float]] = {}  # trial id → number of epochs, and when it was first seen

    def look(self) -> Outlook:
        """Returns the present state of the experiment.

        Raises:
            requests.RequestException: if the manager does not answer.
        """
        records = [record for record in self._manager.trials() if record.key]
        if not self._concurrency:
            config = self._manager.experiment()['params']
            self._concurrency = int(config.get('trialConcurrency', 1))
            self._local = is_local(config.get('trainingService'))
        finished = tuple(record for record in records if record.status in FINISHED)
        at_work = [record for record in records if record.status == 'RUNNING']
        summary = self._manager.document(DATA)
        running = [self._running(record) for record in at_work]
        expected = {(row['stage'], row['strategy']): row['jobs'] for row in summary.get('expected', ())}
        given_up = [job for job in summary.get('jobs', ()) if job['state'] == 'given up']
        results = {record.key: record for record in finished if record.metric is not None}
        pending = Counter(expected)
        pending.subtract(record.kind for record in (*results.values(), *at_work))
        pending.subtract((job['stage'], job['strategy']) for job in given_up)
        taken: dict[Kind, list[float]] = {}
        for record in results.values():
            if record.seconds is not None:
                taken.setdefault(record.kind, []).append(record.seconds)
        for record, trial in zip(at_work, running):
            if trial.left is not None:
                taken.setdefault(record.kind, []).append(trial.elapsed + trial.left)
        work = Work(
            {kind: max(0, count) for kind, count in pending.items()},
            taken,
            [(record.kind, trial.elapsed, trial.left) for record, trial in zip(at_work, running)],
            {stage: records[0].parameters['recipe'][stage]['epochs'] for stage in ('search', 'select', 'retrain')} if records else {},
            self._concurrency,
        )
        return Outlook(
            time.monotonic(),
            tuple(running),
            finished,
            len(results),
            len(given_up),
            sum(expected.values()),
            seconds_left(work) if expected else None,
            summary.get('plan', ''),
        )

    def _metric_of(self, record: TrialRecord) -> Metric:
        if self._metric is None:
            self._metric = Recipe.of_run(record.parameters['recipe']).metric
        return self._metric

    def _activity(self, record: TrialRecord) -> str:
        """Returns the lengthy task that a trial without epochs reports; '' if there is none, or the trial is on another machine."""
        if not self._local:
            return ''
        try:
            *_, last = self._manager.trial_file(record.id, 'trial.log').splitlines()
        except (requests.RequestException, ValueError):
            return ''
        found = _ANNOUNCED.search(last)
        return found['activity'] if found else ''

    def _running(self, record: TrialRecord) -> RunningTrial:
        metric = self._metric_of(record)
        elapsed = max(0.0, time.time() - record.started) if record.started else 0.0
        reported, _ = self._manager.reported(record.id)
        epochs = [value for value in reported if isinstance(value, dict) and 'epoch' in value]
        if not epochs:
            return RunningTrial(record.key, metric, elapsed, activity=self._activity(record))
        last, now = epochs[-1], time.monotonic()
        if self._reported.get(record.id, (0, 0.0))[0] != last['epoch']:
            self._reported[record.id] = last['epoch'], now
        waited = now - self._reported[record.id][1]
        recent = fmean(value['seconds'] for value in epochs[1:][-3:] or epochs)  # the first epoch builds kernels and times executors
        left = max(0.0, recent * (last['of'] - last['epoch']) - min(waited, recent))
        validated = metric.of(last, 'valid') is not None
        return RunningTrial(record.key, metric, elapsed, last['epoch'], last['of'], last['default'], validated, left)


_ANNOUNCED = re.compile(r'PRINT (?P<activity>\S.*, about \d.*)$')
"""The last line of a trial's log during a lengthy task whose progress cannot be measured (see ``activity_line``)."""
