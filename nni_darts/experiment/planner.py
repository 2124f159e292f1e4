"""Plans an experiment to fit a time limit: times a few steps before the first trial, and plans again before the first retraining.

The plan is kept in ``plan.json`` among the manager's logs, so that a resumed experiment follows it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError
from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.manager import FINISHED, Kind, TrialRecord
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.timetable import STAGES, Timetable, epochs_within, kinds_to_time, retraining_within
from nni_darts.experiment.worker import Worker
from nni_darts.files import write_text
from nni_darts.recipes import Recipe
from nni_darts.runs.deadline import MARGIN
from nni_darts.runs.durations import parse_duration
from nni_darts.runs.planning import Course

__all__ = ['PLAN', 'Planner', 'experiment_seconds']

PLAN = 'plan.json'
LOG = 'planning.log'
TIMING = 'A few steps of each stage are being timed, to fit the experiment into its time limit.'


def experiment_seconds(value: Any) -> float | None:
    """Reads NNI's ``maxExperimentDuration``, which is a number of seconds or a string such as ``2h``; None stands for no limit."""
    if not value:
        return None
    return float(value) if isinstance(value, (int, float)) else parse_duration(str(value), 'maxExperimentDuration')


class Planner:
    """Decides how many epochs the stages of an experiment get.

    Args:
        folder: folder of the manager's logs, which gets the plan.
        recipe: the unchanged recipe.
        limit: time limit of the whole experiment, in seconds.
        where: the key that sets the limit, for messages.
        lenient: whether an experiment that cannot end in time runs unchanged up to NNI's own limit instead of being refused.
        concurrency: number of concurrent trials.
        surroundings: ``gpus``, ``trials_per_gpu`` and ``stall_minutes`` of the trials.

    Attributes:
        timetable: the plan so far; None until the steps are timed.
        sentence: the plan in words.
        settled: whether the plan is complete.

    Example:
        ``Planner(Path('log'), recipe, 7200.0, 'classArgs.time', concurrency=2, surroundings=surroundings)``
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        limit: float,
        where: str,
        *,
        concurrency: int,
        surroundings: Mapping[str, Any],
        lenient: bool = False,
    ) -> None:
        self._folder, self._recipe, self._limit, self._where, self._lenient = folder, recipe, limit, where, lenient
        self._concurrency = concurrency
        self._surroundings = surroundings
        self._workers: list[Worker] = []
        self._courses: dict[Kind, Course] = {}
        self.settled = False  # whether the length of retraining is planned, too
        self.timetable: Timetable | None = None
        self.sentence = TIMING
        self._read()

    def update(self, protocol: Protocol, standing: Standing, records: Sequence[TrialRecord], elapsed: float, now: float) -> None:
        """Takes the next step of planning, if there is one.

        Args:
            protocol: the protocol with the unchanged recipe.
            standing: the state of the jobs.
            records: the trials.
            elapsed: seconds for which the experiment has been running.
            now: the present time, in seconds since the epoch.

        Raises:
            InputError: if the time is too short or the steps cannot be timed, unless the planner is lenient.
        """
        if self.timetable is None:
            self._begin(protocol, elapsed)
        elif not self.settled and any(job.stage == 'retrain' for job in protocol.jobs(standing.results, standing.given_up)):
            self._settle(protocol, standing, records, elapsed, now)

    def close(self) -> None:
        """Ends the processes that time steps if they are still running."""
        for worker in self._workers:
            worker.close()

    def _begin(self, protocol: Protocol, elapsed: float) -> None:
        """Starts timing steps, and plans once the times are known."""
        if not self._workers:
            self._workers = [self._worker(kinds) for kinds in self._shares(kinds_to_time(protocol))]
        if any(worker.running for worker in self._workers):
            return
        try:
            for worker in self._workers:
                self._courses |= self._answer(worker)
            left = MARGIN * self._limit - elapsed
            timetable = epochs_within(protocol, self._courses, self._concurrency, seconds=left, limit=self._limit, where=self._where)
            self.sentence = timetable.sentence(self._recipe, self._limit, elapsed)
        except InputError as error:
            if not self._lenient:
                raise
            epochs = {stage: getattr(self._recipe, stage).epochs for stage in STAGES}
            timetable, self.settled = Timetable(**epochs, seconds=0.0), True
            self.sentence = f'Nothing was shortened: {error}.'
        self.timetable = timetable
        self._write()

    def _settle(self, protocol: Protocol, standing: Standing, records: Sequence[TrialRecord], elapsed: float, now: float) -> None:
        """Plans the retraining for the remaining time, from the measured durations of trials."""
        assert self.timetable is not None
        finished = [(record.kind, record.seconds) for record in records if record.metric is not None and record.seconds is not None]
        slowdown = _slowdown(finished, self._courses, self.timetable)
        courses = {kind: _scaled(course, slowdown) for kind, course in self._courses.items()}
        left = Counter(protocol.expected(standing.given_up))
        done = {record.key for record in records if record.key in standing.results}
        kinds = {record.key: record.kind for record in records}
        left.subtract(kinds[key] for key in done | set(standing.busy & kinds.keys()))
        busy = [
            max(0.0, _course(courses, record.kind).seconds(getattr(self.timetable, record.kind[0])) - (now - (record.started or now)))
            for record in records
            if record.status not in FINISHED and record.key in standing.busy
        ]
        recipe = self._recipe.with_epochs('search', self.timetable.search).with_epochs('select', self.timetable.select)
        waiting = {kind: count for kind, count in left.items() if count > 0}
        # Nothing follows the retraining, so less time is kept in reserve.
        reserve = (1 + MARGIN) / 2
        self.timetable = retraining_within(recipe, waiting, courses, busy, self._concurrency, reserve * self._limit - elapsed)
        self.sentence = self.timetable.sentence(self._recipe, self._limit, elapsed)
        self.settled = True
        self._write()

    def _shares(self, kinds: Sequence[Kind]) -> list[Sequence[Kind]]:
        """Divides the kinds among as many processes as there are concurrent trials, because concurrent trials slow each other down."""
        count = max(1, min(self._concurrency, len(kinds)))
        return [kinds[start::count] for start in range(count)]

    def _worker(self, kinds: Sequence[Kind]) -> Worker:
        task = {'recipe': self._recipe.to_dict(), 'kinds': kinds, 'share': self._concurrency, **self._surroundings}
        return Worker('nni_darts.experiment.timing', task, self._folder / LOG)

    def _answer(self, worker: Worker) -> dict[Kind, Course]:
        answer = worker.answer(f'{self._where}: the process that timed steps')
        if 'error' in answer:
            raise InputError(f'{self._where}: {answer["error"]}')
        return {(stage, strategy): Course(**course) for stage, strategy, course in answer['courses']}

    def _write(self) -> None:
        assert self.timetable is not None
        courses = [[*kind, asdict(course)] for kind, course in self._courses.items()]
        plan = {
            'limit': self._limit,
            'timetable': asdict(self.timetable),
            'settled': self.settled,
            'sentence': self.sentence,
            'courses': courses,
        }
        write_text(self._folder / PLAN, json.dumps(plan, indent=1) + '\n')

    def _read(self) -> None:
        path = self._folder / PLAN
        if not path.is_file():
            return
        plan = json.loads(path.read_text('utf-8'))
        self.settled, self.sentence, self.timetable = plan['settled'], plan['sentence'], Timetable(**plan['timetable'])
        self._courses = {(stage, strategy): Course(**course) for stage, strategy, course in plan['courses']}


def _course(courses: Mapping[Kind, Course], kind: Kind) -> Course:
    return courses.get(kind) or courses[kind[0], '']


def _scaled(course: Course, factor: float) -> Course:
    return replace(course, shortest=factor * course.shortest, longest=factor * course.longest)


def _slowdown(finished: Sequence[tuple[Kind, float]], courses: Mapping[Kind, Course], timetable: Timetable) -> float:
    """Returns the ratio of the measured to the expected duration of the finished trials."""
    expected = sum(_course(courses, kind).seconds(getattr(timetable, kind[0])) for kind, _ in finished)
    return sum(seconds for _, seconds in finished) / expected if expected else 1.0
