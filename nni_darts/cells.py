"""The cells that strategies without a supernet train one by one. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from nni_darts.budget import affordable_cells
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.strategies.aging import Aging, evolved
from nni_darts.strategies.presets import preset

__all__ = ['cells_to_train', 'number_of_cells']


def number_of_cells(recipe: Recipe, strategy: str) -> int:
    """How many cells ``random`` or ``evolution`` trains under a seed.

    Raises:
        InputError: for settings of it that do not hold, or a budget that is too small.
    """
    if strategy == 'evolution':
        return _aging(recipe).cells
    if recipe.search.settings.get(strategy):
        raise InputError(
            f'search.settings of {strategy}: this strategy has no settings; search.random_samples is the number of cells that it trains'
        )
    return recipe.search.random_samples if recipe.budget is None else affordable_cells(recipe, strategy)


def cells_to_train(recipe: Recipe, strategy: str, seed: int, values: Mapping[int, float | None]) -> list[AnyGenotype]:
    """The cells that ``random`` or ``evolution`` trains under a seed, as far as they can be named by now.

    Args:
        values: number of a cell, from 1 → its metric; None for one that was given up. Those not there are still to be trained.

    Returns:
        The cells in their order; the more values, the longer the list, and nothing in it ever changes.

    Raises:
        InputError: for settings of it that do not hold.
    """
    if strategy != 'evolution':
        return recipe.random_cells(seed, number_of_cells(recipe, strategy))
    sign = 1 if recipe.metric.optimize_mode == 'maximize' else -1
    scores = {number: None if value is None else sign * value for number, value in values.items()}
    return evolved(_aging(recipe), seed, recipe.space.random_cell, recipe.space.mutated_cell, scores)


def _aging(recipe: Recipe) -> Aging:
    settings = recipe.search.settings.get('evolution', {})
    bought = {} if recipe.budget is None else {'cells': affordable_cells(recipe, 'evolution')}
    try:
        preset('evolution').check({**settings, **bought})
        return Aging(**{**settings, **bought})
    except ValueError as error:
        count = bought.get('cells', 0)
        cells = '1 cell' if count == 1 else f'{count} cells'
        paid = '' if recipe.budget is None else f'a budget of {recipe.budget.passes:g} passes pays for {cells}; '
        raise InputError(f'search.settings of evolution: {paid}{error}') from None
