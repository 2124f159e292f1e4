"""Computes how many epochs the stages of an experiment can have so that it ends within a given time. Pure functions, without torch.

All stages get the same fraction of the recipe's epochs under every strategy, because the strategies could not be compared otherwise.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nni_darts.errors import InputError
from nni_darts.experiment.manager import Kind
from nni_darts.experiment.protocol import Protocol
from nni_darts.recipes import Recipe
from nni_darts.report.lines import duration
from nni_darts.runs.deadline import MARGIN
from nni_darts.runs.limits import affordable
from nni_darts.runs.planning import Course

__all__ = ['OVERHEAD', 'STAGES', 'Timetable', 'epochs_within', 'kinds_to_time', 'makespan', 'retraining_within']

STAGES = ('search', 'select', 'retrain')

OVERHEAD = 8.0
"""Seconds between the end of a trial and the start of the next one: NNI and the tuner each poll every five seconds."""

_STEPS = 1000
"""Fractions of the recipe's epochs are tried in steps of one thousandth."""


@dataclass(frozen=True)
class Timetable:
    """The epochs of each stage, and the expected duration.

    Attributes:
        search, select, retrain: number of epochs of each stage.
        seconds: expected duration of the experiment, from the moment of planning.

    Example:
        >>> Timetable(search=8, select=3, retrain=40, seconds=5400.0).retrain
        40
    """

    search: int
    select: int
    retrain: int
    seconds: float

    def applied(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with these epochs."""
        for stage in STAGES:
            recipe = recipe.with_epochs(stage, getattr(self, stage))
        return recipe

    def sentence(self, recipe: Recipe, limit: float, spent: float = 0.0) -> str:
        """Returns a sentence about the plan.

        Args:
            recipe: the unchanged recipe.
            limit: time limit of the whole experiment, in seconds.
            spent: seconds of the limit that have passed.
        """
        whole = duration(spent + self.seconds)
        shares = [f'{getattr(self, stage)} of {getattr(recipe, stage).epochs} epochs of {name}' for stage, name in _NAMES.items()]
        if all(getattr(self, stage) == getattr(recipe, stage).epochs for stage in STAGES):
            return f'All epochs of the recipe fit into {duration(limit)}: they take about {whole}.'
        return f'Planned for {duration(limit)}: {", ".join(shares)}; about {whole} in all.'


_NAMES = {'search': 'each search', 'select': 'each short training', 'retrain': 'each retraining'}


def kinds_to_time(protocol: Protocol) -> list[Kind]:
    """Returns the kinds of run whose steps are timed: each strategy's search, a short training and a retraining."""
    return [*(('search', name) for name in protocol.strategies if protocol.searches(name)), ('select', ''), ('retrain', '')]


def epochs_within(
    protocol: Protocol, courses: Mapping[Kind, Course], concurrency: int, seconds: float, limit: float, where: str
) -> Timetable:
    """Returns the most epochs with which an experiment ends in time before it has begun: the same fraction of each stage's epochs.

    Args:
        protocol: the protocol of the experiment.
        courses: durations of runs, for the kinds of :func:`kinds_to_time`.
        concurrency: number of concurrent trials.
        seconds: seconds left.
        limit: time limit of the experiment in seconds, for the message.
        where: the key that sets the limit, for the message.

    Raises:
        InputError: if even the fewest epochs take longer; the message says how long.
    """
    expected = protocol.expected()
    fewest = {stage: max(course.least for (of, _), course in courses.items() if of == stage) for stage in STAGES if _has(courses, stage)}

    def at(step: int) -> dict[str, int]:
        most = {stage: getattr(protocol.recipe, stage).epochs for stage in STAGES}
        return {stage: max(fewest.get(stage, 1), most[stage] * step // _STEPS) for stage in STAGES}

    def cost(step: int) -> float:
        return makespan(expected, _seconds(expected, courses, at(step)), concurrency)

    step = affordable(seconds, cost, (1, _STEPS))
    if step is None:
        needed = duration((limit - seconds + cost(1)) / MARGIN)
        raise InputError(
            f'{where}: {duration(limit)} is too short for this experiment: with the fewest epochs it takes about {needed}; '
            'allow more time, or use fewer strategies, seeds or cells'
        )
    return Timetable(**at(step), seconds=cost(step))


def retraining_within(
    recipe: Recipe, left: Mapping[Kind, int], courses: Mapping[Kind, Course], busy: Sequence[float], concurrency: int, seconds: float
) -> Timetable:
    """Returns the most epochs of retraining with which a running experiment ends in time; at least one.

    Args:
        recipe: recipe with the fixed epochs of search and short training, and the most epochs of retraining.
        left: number of jobs of each kind that have not been started.
        courses: durations of runs as measured so far.
        busy: seconds left of each running trial.
        concurrency: number of concurrent trials.
        seconds: seconds left.
    """
    kept = {stage: getattr(recipe, stage).epochs for stage in STAGES}

    def cost(epochs: int) -> float:
        return makespan(left, _seconds(left, courses, {**kept, 'retrain': epochs}), concurrency, busy)

    epochs = affordable(seconds, cost, (1, kept['retrain'])) or 1
    return Timetable(kept['search'], kept['select'], epochs, cost(epochs))


def makespan(jobs: Mapping[Kind, int], seconds: Mapping[Kind, float], concurrency: int, busy: Sequence[float] = ()) -> float:
    """Returns how long jobs take if they are started as the tuner does: searches first, then each job as soon as its inputs are ready.

    Args:
        jobs: number of jobs of each kind.
        seconds: duration of one job of each kind.
        concurrency: number of concurrent trials.
        busy: seconds left of each running trial.
    """
    free = [*busy, *[0.0] * max(0, concurrency - len(busy))]
    heapq.heapify(free)
    waiting = [(kind, number) for stage in STAGES for kind, count in jobs.items() if kind[0] == stage for number in range(count)]
    ends: dict[Kind, list[float]] = {}

    def ready(kind: Kind, number: int) -> float | None:
        """Returns when the inputs of a job are ready; None while that is not known."""
        stage, strategy = kind
        searches = ends.get(('search', strategy), [])
        if stage == 'select' and (of := jobs.get(('search', strategy), 0)):
            needed = number * of // jobs[kind]  # number of searches that must have ended
            return searches[needed] if needed < len(searches) else None
        if stage == 'retrain':
            before = [(of, strategy) for of in ('search', 'select')]
            if any(len(ends.get(kind, ())) < jobs.get(kind, 0) for kind in before):
                return None
            return max((end for kind in before for end in ends.get(kind, ())), default=0.0)
        return 0.0

    last = max(busy, default=0.0)
    while waiting:
        now = heapq.heappop(free)
        times = {job: when for job in waiting if (when := ready(*job)) is not None}
        job = next((job for job, when in times.items() if when <= now), None) or min(times, key=lambda job: times[job])
        waiting.remove(job)
        end = max(now, times[job]) + seconds[job[0]]
        ends.setdefault(job[0], []).append(end)
        heapq.heappush(free, end)
        last = max(last, end)
    return last


def _has(courses: Mapping[Kind, Course], stage: str) -> bool:
    return any(of == stage for of, _ in courses)


def _seconds(kinds: Mapping[Kind, int], courses: Mapping[Kind, Course], epochs: Mapping[str, int]) -> dict[Kind, float]:
    """Returns the seconds of a trial of each kind, including the pause after it."""
    found = {}
    for stage, strategy in kinds:
        course = courses[(stage, strategy)] if stage == 'search' else courses[(stage, '')]
        found[stage, strategy] = OVERHEAD + course.seconds(epochs[stage])
    return found
