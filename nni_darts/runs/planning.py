"""Plans how many epochs or cells fit into the time limit of a run, by timing some of its steps first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.report.lines import duration
from nni_darts.runs.budget import cells_passes, training_passes
from nni_darts.runs.cells import least_cells, number_of_cells, on_data, prior_of
from nni_darts.runs.deadline import MARGIN, TimePlan
from nni_darts.runs.limits import affordable, pace_of_search, pace_of_training, search_seconds, training_seconds
from nni_darts.strategies.registry import find

__all__ = ['Course', 'check_no_budget', 'course_of_search', 'course_of_training', 'plan_search', 'plan_training']

_SAMPLED = 2
"""Number of cells that are timed before cells are trained one by one, because cells differ."""


@dataclass(frozen=True)
class Course:
    """The duration of a run as a function of its epochs, close to a straight line between the fewest and the most epochs.

    Attributes:
        least, most: the fewest epochs that the run can have, and the epochs of the recipe.
        shortest, longest: seconds of the whole run with these numbers of epochs.

    Example:
        >>> Course(least=1, most=11, shortest=10.0, longest=60.0).seconds(5)
        30.0
    """

    least: int
    most: int
    shortest: float
    longest: float

    def seconds(self, epochs: int) -> float:
        """Returns the seconds of a run with a number of epochs."""
        each = (self.longest - self.shortest) / max(1, self.most - self.least)
        return self.shortest + each * (epochs - self.least)


def course_of_search(recipe: Recipe, strategy: str, seed: int = 1) -> Course:
    """Times the first steps of a search and predicts its duration. Arguments and errors as for :meth:`nni_darts.runs.run.Run.execute`.

    For a strategy that trains cells one by one, it is the duration of the ranking before the first training.
    """
    from nni_darts.runs.costs import least_epochs
    from nni_darts.runs.tasks import task_of

    if find(strategy).one_by_one:
        ranking = _ranking_seconds(recipe, strategy, seed, task_of(recipe).load(recipe))
        return Course(1, recipe.search.epochs, ranking, ranking)
    least = min(least_epochs(recipe, strategy), recipe.search.epochs)
    cost, _ = _cost_of_search(recipe, strategy, seed)
    return _course(cost, least, recipe.search.epochs)


def course_of_training(recipe: Recipe, stage: str, seed: int = 1) -> Course:
    """Times the first steps of training a network whose cell is not known yet; the slower of two random cells is used instead.

    Args:
        recipe: all settings.
        stage: ``select`` or ``retrain``.
        seed: seed of all random numbers.
    """
    costs = [_cost_of_training(recipe, stage, cell, seed) for cell in on_data(recipe).random_cells(seed, _SAMPLED)]
    most = getattr(recipe, stage).epochs
    return max((_course(cost, 1, most) for cost in costs), key=lambda course: course.longest)


def plan_search(recipe: Recipe, strategy: str, seconds: float, seed: int = 1, begun: float | None = None) -> TimePlan:
    """Plans the number of epochs or cells of a search, at most those of the recipe.

    Args:
        recipe: all settings.
        strategy: name of a strategy.
        seconds: time limit of the search, in seconds.
        seed: seed of the search.
        begun: start of the time, in seconds since the epoch; by default now.

    Raises:
        InputError: if even the shortest search takes longer, for a recipe with a budget, and as :meth:`nni_darts.runs.run.Run.execute`.
    """
    from nni_darts.runs.costs import least_epochs
    from nni_darts.runs.tasks import task_of

    check_no_budget(recipe, '--time')
    begun = time.time() if begun is None else begun
    if not find(strategy).one_by_one:
        cost, start = _cost_of_search(recipe, strategy, seed)
        least, most = least_epochs(recipe, strategy), recipe.search.epochs
        plan = _planned(cost, seconds, begun, (least, most), f'a search with {strategy}', 'epoch')
        each = (cost(most) - cost(least)) / max(1, most - least)
        tail = max(0.0, cost(plan.count) - start - plan.count * each) if most > least else 0.0
        return dataclasses.replace(plan, tail=tail)
    data = task_of(recipe).load(recipe)
    cells = on_data(recipe).random_cells(seed, _SAMPLED)
    times = [training_seconds(recipe, 'select', pace_of_training(recipe, 'select', cell, seed), data) for cell in cells]
    of, ranking = number_of_cells(recipe, strategy), _ranking_seconds(recipe, strategy, seed, data)
    mean = 0.0 if ranking and of == 1 else sum(times) / len(times)
    whole = training_passes(recipe, 'select')
    bounds = min(least_cells(recipe, strategy), of), of
    return _planned(
        lambda count: ranking + mean * cells_passes(recipe, count) / whole, seconds, begun, bounds, f'a search with {strategy}', 'cell'
    )


def plan_training(recipe: Recipe, stage: str, genotype: AnyGenotype, seconds: float, seed: int = 1, begun: float | None = None) -> TimePlan:
    """Plans the number of epochs of a training in ``select`` or ``retrain``, at most those of the recipe.

    Args:
        recipe: all settings.
        stage: ``select`` or ``retrain``.
        genotype: the cell.
        seconds: time limit of the training, in seconds.
        seed: seed of the training.
        begun: start of the time, in seconds since the epoch; by default now.

    Raises:
        InputError: if one epoch takes longer, and as :meth:`nni_darts.runs.run.Run.execute`.
    """
    begun = time.time() if begun is None else begun
    cost = _cost_of_training(recipe, stage, genotype, seed)
    return _planned(cost, seconds, begun, (1, getattr(recipe, stage).epochs), f'a training ({stage})', 'epoch')


def check_no_budget(recipe: Recipe, where: str) -> None:
    """Raises InputError for a recipe with a budget, which determines the length of a search just as a time limit does.

    Args:
        recipe: all settings.
        where: the option or key that sets the time limit, for the message.
    """
    if recipe.budget is not None:
        raise InputError(f'{where} cannot be combined with a budget, because both set the length of a search; leave one of them out.')


def _cost_of_search(recipe: Recipe, strategy: str, seed: int) -> tuple[Callable[[int], float], float]:
    """Returns epochs → seconds of a search with a supernet, and the seconds until its first step."""
    from nni_darts.runs.tasks import task_of

    data, pace = task_of(recipe).load(recipe), pace_of_search(recipe, strategy, seed)
    return lambda epochs: search_seconds(recipe.with_epochs('search', epochs), strategy, pace, data), pace.start


def _ranking_seconds(recipe: Recipe, strategy: str, seed: int, data: Any) -> float:
    """Returns the seconds of a strategy's ranking by a proxy, from those of some cells; 0 for a strategy without one."""
    from nni_darts.runs.ranking import score_cells

    prior = prior_of(recipe, strategy)
    if prior is None:
        return 0.0
    scores = score_cells(recipe, data, on_data(recipe).random_cells(seed, 1 + _SAMPLED), prior, seed)
    next(scores)  # the first cell also reads the batch
    begun = time.monotonic()
    for _ in scores:
        pass
    return prior.draw * (time.monotonic() - begun) / _SAMPLED


def _cost_of_training(recipe: Recipe, stage: str, genotype: AnyGenotype, seed: int) -> Callable[[int], float]:
    """Returns epochs → seconds of a training."""
    from nni_darts.runs.tasks import task_of

    data, pace = task_of(recipe).load(recipe), pace_of_training(recipe, stage, genotype, seed)
    return lambda epochs: training_seconds(recipe.with_epochs(stage, epochs), stage, pace, data)


def _course(cost: Callable[[int], float], least: int, most: int) -> Course:
    return Course(least, most, cost(least), cost(most))


def _planned(cost: Callable[[int], float], seconds: float, begun: float, bounds: tuple[int, int], what: str, unit: str) -> TimePlan:
    least, most = bounds
    spent = time.time() - begun
    count = affordable(MARGIN * seconds - spent, cost, bounds)
    if count is None:
        fewest = f'{least} {unit}{"s" if least > 1 else ""}'
        raise InputError(
            f'--time {duration(seconds)} is too short for {what}: {fewest} and the remaining work take about '
            f'{duration(spent + cost(least))}, and a tenth of the time is kept in reserve.'
        )
    return TimePlan(seconds, count, most, spent + cost(count), begun=begun)
