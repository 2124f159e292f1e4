"""The cost of searches and trainings in passes over the training data, and the epochs or cells that a budget pays for. Imports no torch.

A pass is every training sample once forward and backward through a network, whichever network that is. A batch that is only evaluated
counts a third of that, for as much of the data as it is. The validation after every epoch is not counted, nor the retraining.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe

__all__ = ['affordable_cells', 'affordable_epochs', 'training_passes', 'training_portion']

_TOLERANCE = 1e-9
_MOST_EPOCHS = 1_000_000


def training_portion(recipe: Recipe, stage: str) -> float:
    """The part of the training data from which the weights learn in a stage; text has validation text of its own."""
    if recipe.task == 'text':
        return 1.0
    if stage == 'search':
        return recipe.search.portion * recipe.search.train_portion
    settings = getattr(recipe, stage)
    return settings.portion * (1 - settings.validation_portion)


def training_passes(recipe: Recipe, stage: str) -> float:
    """Returns the cost of ``select`` or ``retrain`` for one cell."""
    return getattr(recipe, stage).epochs * training_portion(recipe, stage)


def affordable_cells(recipe: Recipe, strategy: str) -> int:
    """How many short trainings the recipe's budget pays for.

    Raises:
        InputError: if it does not pay for one.
    """
    assert recipe.budget is not None
    each = training_passes(recipe, 'select')
    cells = math.floor(recipe.budget.passes / each + _TOLERANCE)
    if not cells:
        raise InputError(
            f'a budget of {recipe.budget.passes:g} passes is too small for {strategy}: the short training of one cell takes {each:.4g}'
        )
    return cells


def affordable_epochs(recipe: Recipe, strategy: str, cost: Callable[[int], float], least: int) -> int:
    """How many epochs of search the recipe's budget pays for, beside the short training of the cell that is found.

    Args:
        cost: epochs → passes of a search of so many epochs; it must not fall.
        least: epochs that a search must have.

    Raises:
        InputError: if it does not pay for so many; the message says what they cost.
    """
    assert recipe.budget is not None
    left = recipe.budget.passes - training_passes(recipe, 'select') + _TOLERANCE
    if cost(least) > left:
        raise InputError(
            f'a budget of {recipe.budget.passes:g} passes is too small for {strategy}: '
            f'a search of {least} epoch{"s" if least > 1 else ""} takes {cost(least):.4g}, the short training of its cell '
            f'{training_passes(recipe, "select"):.4g}'
        )
    low, high = least, _MOST_EPOCHS  # affordable, and more than anybody asks for
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= left else (low, middle)
    return low
