"""The costs of runs, and checks and warnings before they begin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.recipes.limits import LATENCY
from nni_darts.report.cautions import before_search
from nni_darts.runs.budget import affordable_epochs, cells_passes, training_passes, training_portion
from nni_darts.runs.cells import cells_to_train, number_of_cells, on_data, prior_of, ranking_passes
from nni_darts.runs.checks import check_strategies, strategy_settings
from nni_darts.runs.cost_limits import heed_costs
from nni_darts.runs.latencies import predicted_latency
from nni_darts.runs.tasks import task_of
from nni_darts.strategies.costs import EVALUATION
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.registry import create_strategy, find
from nni_darts.strategies.relaxations.check import check_relaxation
from nni_darts.training.run import device_type

__all__ = [
    'SearchCost',
    'as_input_error',
    'cautions',
    'checked_recipe',
    'configured_strategy',
    'cost_of',
    'cost_of_search',
    'least_epochs',
    'preflight',
    'search_passes',
]


def preflight(recipe: Recipe, strategies: Iterable[str], data: Any) -> list[str]:
    """Builds the strategies, transforms and splits of all stages as a check, without training.

    Args:
        recipe: all settings.
        strategies: names of the strategies that will run.
        data: as ``task_of(recipe).load(recipe)`` returns it.

    Returns:
        For each strategy, a line with the epochs or cells that the recipe's budget pays for; empty without a budget.

    Raises:
        InputError: if the recipe does not fit the strategies or the data.
    """
    strategies = list(strategies)
    check_strategies(recipe, strategies)
    bought = [_checked_strategy(recipe, name, data)[1] for name in strategies]
    task = task_of(recipe)
    task.searching(recipe, data, 1)
    for stage in ('select', 'retrain'):
        task.training(recipe, stage, data, 1)
    return bought if recipe.budget else []


def cautions(recipe: Recipe, strategies: Iterable[str], data: Any, stages: Iterable[str] = ('search', 'select', 'retrain')) -> list[str]:
    """Returns warnings about results that would mislead: too few steps of α, classes missing from a split, files left out.

    Args:
        recipe: all settings.
        strategies: names of the strategies that will run.
        data: as ``task_of(recipe).load(recipe)`` returns it.
        stages: the stages that will run.

    Returns:
        One sentence for each warning. Call :func:`preflight` first, which raises for errors in the recipe.
    """
    found = task_of(recipe).cautions(recipe, data, tuple(stages))
    for name in strategies:
        if recipe.search.penalty is not None and find(name).one_by_one:
            found.append(f'{name} has no α, so search.penalty does not concern it; limits do')
        found += _alpha_caution(checked_recipe(recipe, name, data), name, data) if not find(name).one_by_one else []
    return found


def _alpha_caution(recipe: Recipe, name: str, data: Any) -> list[str]:
    """Returns a warning if too few steps move α; none if the strategy does not move α by gradients of batches."""
    whole = configured_strategy(recipe, name)
    strategy, epochs = whole.parts[-1], whole.stage_epochs(recipe.search.epochs)
    if not strategy.relaxation.trains_alpha or strategy.relaxation.sampled:
        return []
    in_epoch = math.ceil(task_of(recipe).batches(recipe, data) / strategy.architect.weight_steps)
    steps = in_epoch * (epochs - strategy.warmup(epochs))
    return before_search(name, steps, strategy.optimizer_settings['lr'])


def checked_recipe(recipe: Recipe, name: str, data: Any) -> Recipe:
    """Returns the recipe for a strategy, with the number of epochs that the budget pays for, if there is a budget.

    Raises:
        InputError: if the strategy does not fit the recipe.
    """
    return _checked_strategy(recipe, name, data)[0]


def _checked_strategy(recipe: Recipe, name: str, data: Any) -> tuple[Recipe, str]:
    """Returns the recipe for a strategy, and a phrase with the number of epochs or cells that a budget pays for.

    For a strategy with a supernet, it builds the supernet on torch's meta device, which allocates no memory. For a strategy without one, it
    checks the settings only.
    """
    with as_input_error(f'the space {recipe.space.name}'):
        task_of(recipe).check_space(recipe, data)
    if find(name).one_by_one:
        count = number_of_cells(recipe, name)
        with as_input_error(f'{name} in the space {recipe.space.name}'):
            on_data(recipe).random_cells(1, 1)
        if not find(name).paper:
            cells_to_train(recipe, name, 1, {})  # a mistake in a user's strategy shows at the first cell
        prior = prior_of(recipe, name)
        before = 0.0 if prior is None else ranking_passes(recipe, prior, len(data.train))
        ranking = '' if prior is None else f' with the ranking of {prior.draw:,} cells by {prior.proxy}'
        return recipe, f'{name}: {count} cells, {before + cells_passes(recipe, count):.4g} passes{ranking}'
    strategy, first = _with_supernet(recipe, name, data)
    with as_input_error(f'{name} in the space {recipe.space.name}'):
        task_of(recipe).check_supernet(recipe, data)
    if recipe.budget is None:
        return recipe, ''

    def cost(epochs: int) -> float:
        return search_passes(recipe, strategy, epochs, data)

    epochs = affordable_epochs(recipe, name, cost, strategy.least_epochs)
    tuning = first.selection.epochs(first.architecture)
    parts = f'{epochs} epochs of search' + (f' and {tuning} of tuning' if tuning else '')
    total = cost(epochs) + training_passes(recipe, 'select')
    return recipe.with_epochs('search', epochs), (f'{name}: {parts}, {total:.4g} passes with the short training of its cell')


def _with_supernet(recipe: Recipe, name: str, data: Any) -> tuple[Any, DifferentiableStrategy]:
    """Returns the strategy of a search and the strategy of its first stage, whose supernet is on torch's meta device."""
    strategy, task = configured_strategy(recipe, name), task_of(recipe)
    heed_costs(strategy, recipe, data)
    with as_input_error(f'{name} in the space {recipe.space.name}'), torch.device('meta'):
        if recipe.budget is None:
            strategy.stage_epochs(recipe.search.epochs)
        space, first = next(strategy.stages(task.space(recipe, data)))
        task.check(first)
        first.mutate_model(space)
        check_relaxation(first.relaxation, {label: len(decision.names) for label, decision in first.architecture.operations().items()})
        first.check_executor(device_type(recipe.accelerator), recipe.precision)
    return strategy, first


def configured_strategy(recipe: Recipe, name: str) -> Any:
    """Returns a strategy with the recipe's settings. Raises InputError for an invalid setting."""
    with as_input_error(f'search.settings of {name}'):
        return create_strategy(name, **strategy_settings(recipe, name))


def search_passes(recipe: Recipe, strategy: Any, epochs: int, data: Any) -> float:
    """Returns the cost of a search of ``epochs`` epochs, in passes over the training data."""
    task, each, passes = task_of(recipe), strategy.stage_epochs(epochs), 0.0
    for part in strategy.parts:
        scored = part.selection.scored(part.architecture)
        evaluated = sum(variants * task.evaluated_portion(recipe, data, batches) for variants, batches in scored)
        passes += training_portion(recipe, 'search') * part.passes(each) + EVALUATION * evaluated
    return passes


@dataclass(frozen=True)
class SearchCost:
    """The cost of a search, in passes over the training data.

    Attributes:
        passes: passes of the whole search including its selection, without the validation after each epoch.
        validated: size of the validation data evaluated after each epoch, as a portion of the training data.
        epochs: number of epochs, including the epochs of the selection.
        passes_of_first_epoch: passes of the first epoch.
    """

    passes: float
    validated: float
    epochs: int
    passes_of_first_epoch: float


def cost_of_search(recipe: Recipe, strategy: str, data: Any) -> SearchCost:
    """Counts the cost of a search with a supernet.

    Args:
        recipe: all settings.
        strategy: name of a strategy with a supernet.
        data: as ``task_of(recipe).load(recipe)`` returns it.

    Raises:
        InputError: for an unknown strategy or an invalid setting.
    """
    fitted = checked_recipe(recipe, strategy, data)
    whole, first = _with_supernet(fitted, strategy, data)
    epochs = fitted.search.epochs
    each = whole.stage_epochs(epochs)
    total = each * len(whole.parts) + first.selection.epochs(first.architecture)
    held_out = task_of(fitted).evaluated_portion(fitted, data, None)
    # The first epoch moves α only if it is not part of the warm-up.
    trains = first.relaxation.trains_alpha and not first.warmup(each)
    passes = first.relaxation.passes + (first.architect.passes / first.architect.weight_steps if trains else 0)
    portion = training_portion(fitted, 'search')
    of_first = portion * passes * (2 if first.architect.union else 1)
    return SearchCost(search_passes(fitted, whole, epochs, data), total * held_out, total, of_first)


def least_epochs(recipe: Recipe, strategy: str) -> int:
    """Returns the smallest number of epochs in which a strategy with a supernet trains α."""
    return int(configured_strategy(recipe, strategy).least_epochs)


def cost_of(genotype: AnyGenotype, recipe: Recipe, data: Any, stage: str = 'retrain') -> dict[str, float]:
    """Returns the cost of the network that a stage trains, for one image or one word.

    Args:
        genotype: the architecture.
        recipe: all settings.
        data: as ``task_of(recipe).load(recipe)`` returns it, or its shape.
        stage: ``select`` or ``retrain``.

    Returns:
        ``parameters`` and ``multiply_adds``, which are whole numbers; and ``latency_ms`` as predicted, if the recipe has a table of
        latencies and the network is one of its space at the size of ``retrain``.
    """
    with as_input_error(stage):
        cost = task_of(recipe).cost(recipe, stage, genotype, data)
    found: dict[str, float] = {'parameters': cost.parameters, 'multiply_adds': cost.multiply_adds}
    sizes = ('channels', 'cells', 'pool_batch_norm')
    if stage == 'retrain' or all(getattr(getattr(recipe, stage), name, None) == getattr(recipe.retrain, name, None) for name in sizes):
        latency = predicted_latency(genotype, recipe, data)
        found |= {} if latency is None else {LATENCY: latency}
    return found


@contextmanager
def as_input_error(what: str) -> Iterator[None]:
    """Converts a ValueError or TypeError in the block, caused by a user's setting, to an InputError that begins with ``what``."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f'{what}: {error}') from None
