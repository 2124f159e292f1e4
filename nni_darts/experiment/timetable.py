"""How many epochs the stages of an experiment get, so that it ends within a given time. Pure functions of their arguments, no torch.

All strategies get the same portion of the recipe's epochs: what they are compared by would say nothing otherwise.
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
from nni_darts.strategies.registry import find

__all__ = ['OVERHEAD', 'STAGES', 'Timetable', 'epochs_within', 'kinds_to_time', 'makespan', 'retraining_within']

STAGES = ('search', 'select', 'retrain')

OVERHEAD = 8.0
"""Seconds between the end of a trial and the start of the next one: NNI and the tuner look every five seconds each."""

_STEPS = 1000
"""Portions of the recipe's epochs are tried in thousandths."""


@dataclass(frozen=True)
class Timetable:
    """The epochs of each stage, and what was expected of them.

    Attributes:
        search, select, retrain: epochs.
        seconds: how long the experiment is expected to take with them, from the moment of planning.

    Example:
        >>> Timetable(search=8, select=3, retrain=40, seconds=5400.0).retrain
        40
    """

    search: int
    select: int
    retrain: int
    seconds: float

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with these epochs."""
        for stage in STAGES:
            recipe = recipe.with_epochs(stage, getattr(self, stage))
        return recipe

    def sentence(self, recipe: Recipe, limit: float, spent: float = 0.0) -> str:
        """Says what was planned.

        Args:
            recipe: as it was given.
            limit: the time of the whole experiment, in seconds.
            spent: seconds of it that are over.
        """
        whole = duration(spent + self.seconds)
        shares = [f'{getattr(self, stage)} of {getattr(recipe, stage).epochs} epochs of {name}' for stage, name in _NAMES.items()]
        if all(getattr(self, stage) == getattr(recipe, stage).epochs for stage in STAGES):
            return f'All epochs of the recipe fit into {duration(limit)}: they take about {whole}.'
        return f'Planned for {duration(limit)}: {", ".join(shares)}; about {whole} in all.'


_NAMES = {'search': 'each search', 'select': 'each short training', 'retrain': 'each retraining'}


def kinds_to_time(strategies: Sequence[str]) -> list[Kind]:
    """The runs whose steps are timed: a search with every supernet, a short training and a retraining."""
    return [*(('search', name) for name in strategies if not find(name).one_by_one), ('select', ''), ('retrain', '')]


def epochs_within(
    protocol: Protocol, courses: Mapping[Kind, Course], concurrency: int, seconds: float, limit: float, where: str
) -> Timetable:
    """Returns the most epochs with which an experiment that is still to begin ends in time: the same portion of each stage's.

    Args:
        protocol: what is compared.
        courses: how long runs take, of ``kinds_to_time``.
        concurrency: trials at a time.
        seconds: left.
        limit: the time that the experiment was given, for the message.
        where: the key that gives it, for the message.

    Raises:
        InputError: if the fewest epochs take longer; the message says how long.
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
            'give it more time, or fewer strategies, seeds or cells'
        )
    return Timetable(**at(step), seconds=cost(step))


def retraining_within(
    recipe: Recipe, left: Mapping[Kind, int], courses: Mapping[Kind, Course], busy: Sequence[float], concurrency: int, seconds: float
) -> Timetable:
    """Returns the most epochs of retraining with which an experiment under way ends in time; at least one.

    Args:
        recipe: with the epochs of search and short training that are kept, and the most epochs of retraining.
        left: how many jobs of a kind have not been started.
        courses: how long runs take, as measured by now.
        busy: of each trial at work, the seconds that it still takes.
        concurrency: trials at a time.
        seconds: left.
    """
    kept = {stage: getattr(recipe, stage).epochs for stage in STAGES}

    def cost(epochs: int) -> float:
        return makespan(left, _seconds(left, courses, {**kept, 'retrain': epochs}), concurrency, busy)

    epochs = affordable(seconds, cost, (1, kept['retrain'])) or 1
    return Timetable(kept['search'], kept['select'], epochs, cost(epochs))


def makespan(jobs: Mapping[Kind, int], seconds: Mapping[Kind, float], concurrency: int, busy: Sequence[float] = ()) -> float:
    """Returns how long jobs take, started as the tuner does: searches first, each next step of a strategy once what it needs is done.

    Args:
        jobs: number of jobs of each kind.
        seconds: of one job of each kind.
        concurrency: trials at a time.
        busy: of each trial at work, the seconds that it still takes.
    """
    free = [*busy, *[0.0] * max(0, concurrency - len(busy))]
    heapq.heapify(free)
    waiting = [(kind, number) for stage in STAGES for kind, count in jobs.items() if kind[0] == stage for number in range(count)]
    ends: dict[Kind, list[float]] = {}

    def ready(kind: Kind, number: int) -> float | None:
        """When all that a job needs is done; None while that cannot be said."""
        stage, strategy = kind
        searches = ends.get(('search', strategy), [])
        if stage == 'select' and (of := jobs.get(('search', strategy), 0)):
            needed = number * of // jobs[kind]  # its own search
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
    """The seconds of a trial of each kind, with what lies between trials."""
    found = {}
    for stage, strategy in kinds:
        course = courses[(stage, strategy)] if stage == 'search' else courses[(stage, '')]
        found[stage, strategy] = OVERHEAD + course.seconds(epochs[stage])
    return found
