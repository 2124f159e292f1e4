"""The cells that strategies without a supernet train one by one. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_darts._lazy import in_user_code
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.budget import affordable_cells
from nni_darts.strategies.registry import find, full_name
from nni_darts.strategies.trained import OneByOne

__all__ = ['cells_to_train', 'least_cells', 'number_of_cells', 'on_data', 'own_settings', 'with_cells']

_facts: dict[str, Mapping[str, Any]] = {}
"""Settings of the data as text → its number of classes, channels and size, because reading them for every cell would take long."""


def own_settings(recipe: Recipe, strategy: str) -> dict[str, Any]:
    """Returns a strategy's entry in ``search.settings``, under its name or an alias."""
    same = [name for name in recipe.search.settings if full_name(name) == full_name(strategy)]
    return dict(recipe.search.settings[strategy if strategy in same else same[0]]) if same else {}


def number_of_cells(recipe: Recipe, strategy: str) -> int:
    """Returns the number of cells that a strategy without a supernet trains under each seed.

    Raises:
        InputError: for invalid settings of the strategy, or a budget that is too small.
    """
    return int(_proposer(recipe, strategy).cells)  # type: ignore[attr-defined]


def least_cells(recipe: Recipe, strategy: str) -> int:
    """Returns the fewest cells with which a strategy without a supernet makes sense. Errors as for :func:`number_of_cells`."""
    return _proposer(recipe, strategy).least


def with_cells(recipe: Recipe, strategy: str, count: int) -> Recipe:
    """Returns the recipe with another number of cells for a strategy without a supernet."""
    key = find(strategy).cells_key
    settings = {**recipe.search.settings, strategy: {**own_settings(recipe, strategy), 'cells': count}}
    changes: dict[str, Any] = {key: count} if key else {'settings': settings}
    return recipe.model_copy(update={'search': recipe.search.model_copy(update=changes)})


def cells_to_train(recipe: Recipe, strategy: str, seed: int, values: Mapping[int, float | None]) -> list[AnyGenotype]:
    """Returns the cells that a strategy without a supernet trains under a seed, as far as they are determined so far.

    Args:
        recipe: all settings.
        strategy: name of the strategy.
        seed: seed of the search.
        values: number of a cell, from 1 → its metric, or None if it was given up. Missing cells have yet to be trained.

    Returns:
        The cells in order. More values make the list longer, but never change its entries.

    Raises:
        InputError: for invalid settings of the strategy, or a user's strategy that fails or proposes no cell of the space.
    """
    sign = 1 if recipe.metric.optimize_mode == 'maximize' else -1
    scores = {number: None if value is None else sign * value for number, value in values.items()}
    method, space = find(strategy), on_data(recipe).space
    if method.paper:
        return _proposer(recipe, strategy).named(space, seed, scores)
    with in_user_code(strategy, 'strategy', method.file):
        cells = _proposer(recipe, strategy).named(space, seed, scores)
    for cell in cells or [None]:
        if not (isinstance(cell, AnyGenotype) and space.accepts(cell)):
            raise InputError(
                f'strategy {strategy} proposes {str(cell)[:60]!r}, an object of {type(cell).__name__}; propose must return a cell of '
                f'{space.name}, as space.random_cell(rng) and space.mutated_cell(cell, rng) do'
            )
    return cells


def on_data(recipe: Recipe) -> Recipe:
    """Returns the recipe with a space that draws cells for its data, within the recipe's limits.

    A user's space may have a parameter for the number of classes. With limits, this imports torch and reads the shape of the data.
    """

    def facts() -> Mapping[str, Any]:
        from nni_darts.runs.tasks import task_of

        task, key = task_of(recipe), repr(recipe.data)
        if key not in _facts:
            _facts[key] = task.facts(task.shape(recipe))
        return _facts[key]

    found = recipe.model_copy(update={'space': recipe.space.on_data(facts)})
    if recipe.limits is None:
        return found
    from nni_darts.runs.cost_limits import drawn_below

    return found.model_copy(update={'space': drawn_below(found)})


def _proposer(recipe: Recipe, strategy: str) -> OneByOne:
    method, settings = find(strategy), own_settings(recipe, strategy)
    assert method.proposer is not None
    if settings and method.cells_key:
        raise InputError(
            f'search.settings of {strategy}: this strategy has no settings; search.{method.cells_key} is the number of cells that it trains'
        )
    if method.cells_key:
        settings['cells'] = getattr(recipe.search, method.cells_key)
    bought = None if recipe.budget is None else affordable_cells(recipe, strategy)
    if bought is not None:
        settings['cells'] = bought
    try:
        if not method.cells_key:
            method.check(settings)
        return method.proposer(**settings)
    except ValueError as error:
        cells = '1 cell' if bought == 1 else f'{bought} cells'
        paid = '' if recipe.budget is None else f'a budget of {recipe.budget.passes:g} passes pays for {cells}; '
        raise InputError(f'search.settings of {strategy}: {paid}{error}') from None
