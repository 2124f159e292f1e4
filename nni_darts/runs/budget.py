"""The cost of searches and trainings in passes over the training data, and what a budget affords in epochs or cells. Imports no torch.

A pass is one forward and one backward computation of a network, whichever network it is, on every training sample. Evaluating a batch
counts as a third of this, in proportion to its size. The validation after each epoch and the retraining are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.strategies.trained.halving import Halving

__all__ = ['affordable_cells', 'affordable_epochs', 'cells_passes', 'halving_of', 'training_passes', 'training_portion']

_TOLERANCE = 1e-9
_MOST_EPOCHS = 1_000_000


def training_portion(recipe: Recipe, stage: str) -> float:
    """Returns the fraction of the training data that trains the weights in a stage; 1 for text, which has separate validation text."""
    if recipe.task == 'text':
        return 1.0
    if stage == 'search':
        return recipe.search.portion * recipe.search.train_portion
    settings = getattr(recipe, stage)
    return settings.portion * (1 - settings.validation_portion)


def training_passes(recipe: Recipe, stage: str) -> float:
    """Returns the cost of ``select`` or ``retrain`` for one cell."""
    return getattr(recipe, stage).epochs * training_portion(recipe, stage)


def halving_of(recipe: Recipe) -> Halving | None:
    """Returns the rungs of the short trainings of cells that are trained one by one; None if each is trained in full."""
    settings = recipe.select.halving
    return None if settings is None else Halving.of(settings.eta, settings.min_epochs, recipe.select.epochs)


def cells_passes(recipe: Recipe, cells: int) -> float:
    """Returns the cost of the short trainings of a number of cells under a seed, with successive halving if the recipe has it."""
    halving = halving_of(recipe)
    if halving is None or cells == 1:
        return cells * training_passes(recipe, 'select')
    return halving.epochs(cells) * training_portion(recipe, 'select')


def affordable_cells(recipe: Recipe, strategy: str, ranking: float = 0.0) -> int:
    """Returns the number of cells whose short trainings the recipe's budget affords.

    Args:
        recipe: all settings.
        strategy: name of the strategy, for the message.
        ranking: passes of a ranking of untrained networks before the first training.

    Raises:
        InputError: if it does not afford one.
    """
    assert recipe.budget is not None
    each, left = training_passes(recipe, 'select'), recipe.budget.passes - ranking
    cells = max(0, math.floor(left / each + _TOLERANCE))
    while cells and cells_passes(recipe, cells + 1) <= left + _TOLERANCE:
        cells += 1  # with successive halving, most cells cost less than a whole short training
    if not cells:
        before = f', its ranking before it {ranking:.4g}' if ranking else ''
        raise InputError(
            f'a budget of {recipe.budget.passes:g} passes is too small for {strategy}: '
            f'the short training of one cell takes {each:.4g}{before}'
        )
    return cells


def affordable_epochs(recipe: Recipe, strategy: str, cost: Callable[[int], float], least: int) -> int:
    """Returns the number of epochs of search that the recipe's budget affords in addition to the short training of the cell found.

    Args:
        recipe: all settings.
        strategy: name of the strategy, for the message.
        cost: epochs → passes of a search of this length; it must not decrease.
        least: fewest epochs of a search.

    Raises:
        InputError: if the budget does not afford the fewest epochs; the message says what they cost.
    """
    assert recipe.budget is not None
    left = recipe.budget.passes - training_passes(recipe, 'select') + _TOLERANCE
    if cost(least) > left:
        raise InputError(
            f'a budget of {recipe.budget.passes:g} passes is too small for {strategy}: '
            f'a search of {least} epoch{"s" if least > 1 else ""} takes {cost(least):.4g}, the short training of its cell '
            f'{training_passes(recipe, "select"):.4g}'
        )
    low, high = least, _MOST_EPOCHS  # an affordable number, and more than any search needs
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= left else (low, middle)
    return low
