"""Turns a folder of images into a trained network within a given time: plans, searches, trains, and compares with a known network.

Every part is the run of a separate command (``search``, ``retrain``) with the planned recipe. The recipe is written to the output folder,
so that each part can be repeated or changed by hand.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from nni_darts.data.report import DataReport, suggest
from nni_darts.errors import InputError
from nni_darts.files import write_text
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.networks import KnownNetwork
from nni_darts.genotypes.published import PUBLISHED
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import METRICS
from nni_darts.report.lines import duration
from nni_darts.runs.comparison import Comparison
from nni_darts.runs.costs import cost_of, preflight
from nni_darts.runs.lengths import longest_training, shortest_training, with_portion, within_parameters
from nni_darts.runs.limits import Pace, affordable, pace_of_search, pace_of_training, search_seconds, take_fastest_threads, training_seconds
from nni_darts.runs.proposal import (
    LEAST_SEARCH_EPOCHS,
    MOST_SEARCH_EPOCHS,
    SIZES,
    STEPS,
    Facts,
    Size,
    alpha_rate,
    cheaper,
    image_sides,
    proposed_recipe,
    search_portion,
    sensible,
)
from nni_darts.runs.tasks import task_of
from nni_darts.runs.training_page import read_answers

__all__ = [
    'BASELINE',
    'FIT',
    'RECIPE',
    'RETRAIN',
    'SEARCH',
    'Order',
    'Plan',
    'facts_of',
    'finish',
    'plan_fit',
    'read_plan',
    'settled',
]

FIT, RECIPE = 'fit.json', 'recipe.yml'
OUTCOME = 'outcome'
"""The key in ``fit.json`` of the results and the comparison, once everything is finished."""
SEARCH, RETRAIN, BASELINE = 'search', 'retrain', 'baseline'
"""The folders of the parts."""

STAND_IN = PUBLISHED['DARTS_V2']
"""The cell whose network is timed before a cell is found. Most of its operations are separable convolutions, the most expensive ones."""

SHARE_OF_SEARCH = 0.4
"""The fraction of the time for the search; the remainder is for training the found and the known network equally long."""

MEASURING = 0.05
"""The fraction of the time after which no other sizes are timed."""

RESERVE = 0.06
"""The fraction of the time that is kept in reserve, because the pace of a machine varies."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """The user's requirements.

    Attributes:
        seconds: total time in seconds.
        strategy: name of the strategy that searches.
        baseline: name of the known network for comparison; None for no comparison.
        max_parameters: largest number of parameters of the final network; None for no limit.
        seed: seed of all random numbers.

    Example:
        ``Order(seconds=3600, strategy='darts-1st', baseline='mobilenet_v3_small')``
    """

    seconds: float
    strategy: str
    baseline: str | None
    max_parameters: int | None = None
    seed: int = 1


@dataclass(frozen=True)
class Plan:
    """The settings chosen for a data set and a time.

    Attributes:
        order: the user's requirements.
        recipe: all settings, as plain data.
        why: a sentence for each choice.
        seconds: predicted seconds of each part: ``measuring``, ``search``, ``retrain``, ``baseline``.
        peak_mib: peak memory while the first steps were timed, in MiB.
        begun: start of the command, in seconds since the epoch.
        threads: the fastest number of threads, which a resumed run keeps; 0 in plans of earlier versions.
        settled: whether the cell is known, and the length of its training is therefore final.

    Example:
        ``Recipe.from_dict(plan.recipe)``
    """

    order: Order
    recipe: dict[str, Any]
    why: tuple[str, ...]
    seconds: dict[str, float]
    peak_mib: int
    begun: float
    threads: int = 0
    settled: bool = False

    @property
    def total(self) -> float:
        """Predicted seconds of all parts."""
        return sum(self.seconds.values())

    def with_recipe(self, recipe: Recipe) -> Plan:
        """Returns the plan with the final lengths and sizes."""
        epochs, channels = recipe.retrain.epochs, recipe.retrain.channels
        part = _part(recipe.retrain.portion)
        why = f'once the cell was known: training for {epochs} epochs{part}, with {channels} channels, in the remaining time'
        return dataclasses.replace(self, recipe=recipe.to_dict(), why=(*self.why, why), settled=True)

    def write(self, output: Path) -> None:
        """Writes ``recipe.yml``, and ``fit.json``, which :func:`read_plan` reads."""
        write_text(output / FIT, json.dumps(asdict(self), indent=2) + '\n')
        about = f'# Chosen for {self.recipe["data"]["path"]}; nni-darts search and retrain take this file as --recipe.\n'
        write_text(output / RECIPE, about + yaml.safe_dump(self.recipe, sort_keys=False, allow_unicode=True))


def read_plan(output: Path) -> Plan:
    """Reads the plan of an output folder.

    Raises:
        InputError: if there is no plan, or it is damaged.
    """
    path = output / FIT
    try:
        values = json.loads(path.read_text('utf-8'))
        values.pop(OUTCOME, None)  # present if the run has ended
        return Plan(**{**values, 'order': Order(**values['order']), 'why': tuple(values['why'])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is not a plan of nni-darts fit ({error}); choose another folder.') from None


def facts_of(name: str, path: str, report: DataReport) -> Facts:
    """Returns the facts about a data set that determine how it is searched.

    Args:
        name: ``data.name`` of the recipe.
        path: ``data.path`` of the recipe.
        report: report on the data.
    """
    return Facts(
        name,
        path,
        images=sum(report.train),
        classes=len(report.classes),
        side=round(report.short_side.median),
        scalable=report.files,
        channels=1 if report.grey and not report.files else 3,
    )


def plan_fit(facts: Facts, report: DataReport, order: Order, begun: float, say: Say) -> Plan:
    """Chooses sizes and lengths with which everything ends in time, by timing a few real steps of a search and of trainings.

    Args:
        facts: facts about the data.
        report: report on the same data.
        order: the user's requirements.
        begun: start of the command, in seconds since the epoch.
        say: called with a sentence about what is being timed.

    Raises:
        InputError: if the time is too short for the smallest networks; the message says how much they need.
    """
    candidates = [(size, side) for side in image_sides(facts) for size in SIZES if sensible(size, facts)]
    tried: set[int] = set()
    chosen: _Timed | None = None
    # The cheapest networks are quick to time, and show which others to try.
    index = len(candidates) - 1
    while index not in tried and (chosen is None or time.time() - begun <= MEASURING * order.seconds):
        size, side = candidates[index]
        recipe = _recipe(facts, report, size, side)
        data = task_of(recipe).load(recipe)
        if not tried:
            preflight(recipe, [order.strategy], data)  # too few images are refused immediately
            if torch.get_num_threads() > 1:
                say(f'timing a few steps on {torch.get_num_threads()} threads, and on one')
                take_fastest_threads(recipe, order.strategy, order.seed)
        tried.add(index)
        say(f'timing a few steps at {f"{side}×{side} pixels" if side else "the size of the images"}, {size.name} networks')
        timed = _Timed.at(recipe, data, size, side, order)
        plan, needed = timed.plan(facts, order, begun)
        if plan is not None:
            chosen = timed
            if len(tried) > 1:
                break  # the most expensive size that was likely to be cheap enough
        elif chosen is None:
            raise InputError(
                f'{duration(order.seconds)} is too short for {facts.images:,} images on this machine: the smallest search and training '
                f'take about {duration(needed)}. Give --time {_rounded_up(needed)} or more.'
            )
        index = cheaper(candidates, index, (order.seconds - (time.time() - begun)) / needed, tried)
    assert chosen is not None
    plan, needed = chosen.plan(facts, order, begun)
    if plan is None:  # the timing used up the spare time
        raise InputError(f'{duration(order.seconds)} is too short on this machine; give --time {_rounded_up(needed)} or more.')
    return plan


def settled(plan: Plan, recipe: Recipe, genotype: AnyGenotype, now: float, resumed: bool) -> Recipe:
    """Returns the recipe for a final network within the size limit, trained for as many epochs as the remaining time allows.

    Args:
        plan: the plan before the search.
        recipe: the recipe of the plan.
        genotype: the cell found.
        now: the present time, in seconds since the epoch.
        resumed: whether the run was interrupted, so that the predicted time counts instead of the time since its beginning.

    Raises:
        InputError: if no network of the cell has at most ``max_parameters`` parameters.
    """
    order, data = plan.order, task_of(recipe).load(recipe)
    if order.max_parameters is not None:
        recipe = within_parameters(recipe, genotype, order.max_parameters, lambda r: int(cost_of(genotype, r, data)['parameters']))
    left = plan.begun + order.seconds * (1 - RESERVE / 2) - now
    if resumed:
        left = sum(plan.seconds.get(part, 0) for part in (RETRAIN, BASELINE))
    paces = [pace_of_training(recipe, 'retrain', genotype, order.seed)]
    if order.baseline:
        paces.append(pace_of_training(recipe, 'retrain', KnownNetwork(order.baseline), order.seed))
    left -= time.time() - now  # time that the measuring took

    def cost(changed: Recipe) -> float:
        return sum(training_seconds(changed, 'retrain', pace, data) for pace in paces)

    longest = longest_training(recipe, data, left, cost)
    if longest is not None:
        return longest
    shortest = shortest_training(recipe, data)
    epochs = affordable(left, lambda epochs: cost(shortest.with_epochs('retrain', epochs)), (1, shortest.retrain.epochs))
    return shortest.with_epochs('retrain', epochs or 1)


def finish(output: Path, plan: Plan, results: dict[str, dict[str, Any]], resumed: bool) -> dict[str, Any]:
    """Compares the two networks and adds the outcome to ``fit.json``.

    Args:
        output: output folder of the whole run.
        plan: the plan.
        results: name of a part → result of its stage.
        resumed: whether the run was interrupted.

    Returns:
        ``took`` (seconds), ``results`` and, if a known network was trained, ``comparison`` and ``verdict``.
    """
    values = json.loads((output / FIT).read_text('utf-8'))
    # Time during which the run was interrupted does not count.
    worked = plan.seconds['measuring'] + sum(result['seconds'] for result in results.values())
    took = worked if resumed else time.time() - plan.begun
    outcome: dict[str, Any] = {'took': values.get(OUTCOME, {}).get('took', round(took, 1)), 'results': results}
    if plan.order.baseline:
        comparison = Comparison(read_answers(output / RETRAIN), read_answers(output / BASELINE))
        outcome |= {'comparison': comparison.to_dict(), 'verdict': comparison.sentence(plan.order.baseline)}
    write_text(output / FIT, json.dumps({**values, OUTCOME: outcome}, indent=2) + '\n')
    return outcome


# Choices --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Timed:
    """A recipe with the measured pace of its parts."""

    recipe: Recipe
    size: Size
    side: int | None
    data: Any
    search: Pace
    retrain: Pace
    baseline: Pace | None

    @classmethod
    def at(cls, recipe: Recipe, data: Any, size: Size, side: int | None, order: Order) -> _Timed:
        search = pace_of_search(recipe, order.strategy, order.seed)
        retrain = pace_of_training(recipe, 'retrain', STAND_IN, order.seed)
        known = pace_of_training(recipe, 'retrain', KnownNetwork(order.baseline), order.seed) if order.baseline else None
        return cls(recipe, size, side, data, search, retrain, known)

    def plan(self, facts: Facts, order: Order, begun: float) -> tuple[Plan | None, float]:
        """Returns the plan with the most epochs that fit (None if even the fewest do not), and the seconds of the fewest epochs."""
        used = time.time() - begun
        left = order.seconds * (1 - RESERVE) - used
        recipe = self._searched(facts, order, SHARE_OF_SEARCH * left)
        searching = search_seconds(recipe, order.strategy, self.search, self.data)

        def training(changed: Recipe) -> list[float]:
            paces = [self.retrain, *([self.baseline] if self.baseline else [])]
            return [training_seconds(changed, 'retrain', pace, self.data) for pace in paces]

        def needed(changed: Recipe) -> float:
            return (searching + sum(training(changed))) / (1 - RESERVE) + used

        shortest = shortest_training(recipe, self.data)
        longest = longest_training(recipe, self.data, left - searching, lambda changed: sum(training(changed)))
        if longest is None:
            return None, needed(shortest)
        recipe = longest
        predicted = dict(zip((RETRAIN, BASELINE), training(recipe)))
        seconds = {'measuring': used, SEARCH: searching, **predicted}
        why = _reasons(recipe, facts, order, self)
        return Plan(order, recipe.to_dict(), why, seconds, self.retrain.peak_mib, begun, torch.get_num_threads()), needed(
            with_portion(shortest, 1.0)
        )

    def _searched(self, facts: Facts, order: Order, seconds: float) -> Recipe:
        """Returns the recipe with a search that fits into ``seconds``, or the shortest search. Large data sets are searched on a part."""
        steps = min(STEPS[1], max(STEPS[0], int(seconds / max(1e-3, self.search.step))))
        batch = self.recipe.search.batch_size
        portion = search_portion(steps, facts.images, batch, self.recipe.search.train_portion)
        recipe = self.recipe.model_copy(update={'search': self.recipe.search.model_copy(update={'portion': portion})})

        def cost(epochs: int) -> float:
            return search_seconds(recipe.with_epochs('search', epochs), order.strategy, self.search, self.data)

        epochs = affordable(seconds, cost, (LEAST_SEARCH_EPOCHS, MOST_SEARCH_EPOCHS)) or LEAST_SEARCH_EPOCHS
        made = epochs * task_of(recipe).batches(recipe, self.data)
        settings = {'epochs': epochs, 'architecture_learning_rate': alpha_rate(made)}
        return recipe.model_copy(update={'search': recipe.search.model_copy(update=settings)})


def _recipe(facts: Facts, report: DataReport, size: Size, side: int | None) -> Recipe:
    """Returns the recipe of the given sizes, with the suggested settings for unbalanced classes, long pictures and unreadable files."""
    values = proposed_recipe(facts, size, side)
    for key, value in suggest(report).changes.items():
        section, _, name = key.rpartition('.')
        if key in ('data.fit', 'data.class_weights', 'data.skip_unreadable', 'metric'):
            (values[section] if section else values)[name] = value
    return Recipe.from_dict(values, source=f'the recipe for {facts.path}')


def _part(portion: float) -> str:
    return '' if portion == 1 else f' on {100 * portion:.3g} % of the images'


def _reasons(recipe: Recipe, facts: Facts, order: Order, timed: _Timed) -> tuple[str, ...]:
    """Returns a sentence for each choice."""
    search, retrain, side = recipe.search, recipe.retrain, timed.side
    scaled = (
        f'images scaled to {side}×{side} pixels ({facts.side} is their median shorter side)' if side else f'images of {facts.side} pixels'
    )
    portion, part = _part(search.portion), _part(retrain.portion)
    compared = f', and {order.baseline} for as long, to compare' if order.baseline else ''
    metric = METRICS[recipe.metric.name].title
    return (
        f'{scaled}; {timed.size.name} networks, the largest that fit into the time',
        f'search: {order.strategy}, {search.epochs} epochs{portion} at {timed.search.step:.2g} s a step',
        f'training: {retrain.epochs} epochs{part} at about {timed.retrain.step:.2g} s a step{compared}',
        f'computed on {torch.get_num_threads()} of {os.cpu_count()} cores',
        f'batches of {search.batch_size}; a learning rate of {search.architecture_learning_rate:g}, with which α can move far enough',
        f'cells and epochs are compared by validation {metric}',
    )


def _rounded_up(seconds: float) -> str:
    """Returns a duration in the form that --time accepts, rounded up."""
    minutes = max(1, -(-1.1 * seconds // 60))
    return f'{minutes:.0f}m' if minutes < 120 else f'{-(-minutes // 60):.0f}h'
