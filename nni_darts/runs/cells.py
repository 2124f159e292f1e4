"""The cells that strategies without a supernet train one by one. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_darts._lazy import in_user_code
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.budget import affordable_cells
from nni_darts.strategies.method import Method
from nni_darts.strategies.registry import find, full_name
from nni_darts.strategies.trained import OneByOne, Prior
from nni_darts.strategies.trained.prior import Ranked

__all__ = [
    'cells_to_train',
    'least_cells',
    'number_of_cells',
    'on_data',
    'own_settings',
    'prior_of',
    'ranked_cells',
    'ranking_passes',
    'with_cells',
]

_facts: dict[str, Mapping[str, Any]] = {}
"""Settings of the data as text → its number of classes, channels and size, because reading them for every cell would take long."""

_MANY = 1_000_000_000
"""More cells than any setting requires."""

_images: dict[str, int] = {}
"""Settings of the data as text → its number of training images."""


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


def prior_of(recipe: Recipe, strategy: str) -> Prior | None:
    """Returns the ranking with which a strategy begins; None if it begins without one. Errors as for :func:`number_of_cells`."""
    if not find(strategy).one_by_one:
        return None
    prior = getattr(_proposer(recipe, strategy), 'prior', None)
    return prior if isinstance(prior, Prior) else None


def ranked_cells(recipe: Recipe, strategy: str) -> int:
    """Returns how many cells a strategy takes from its ranking: those that it proposes before any training."""
    proposer = _proposer(recipe, strategy)
    return sum(not proposer.waits_for(number) for number in range(1, proposer.cells + 1))  # type: ignore[attr-defined]


def ranking_passes(recipe: Recipe, prior: Prior, images: int | None = None) -> float:
    """Returns the cost of a ranking, in passes over the training data.

    Args:
        recipe: all settings.
        prior: the ranking.
        images: number of training images; None reads the data, which imports torch.
    """
    if images is None:
        from nni_darts.runs.tasks import task_of

        key = repr(recipe.data)
        if key not in _images:
            _images[key] = len(task_of(recipe).load(recipe).train)
        images = _images[key]
    return prior.images / images


def cells_to_train(
    recipe: Recipe, strategy: str, seed: int, values: Mapping[int, float | None], ranked: Sequence[AnyGenotype] = ()
) -> list[AnyGenotype]:
    """Returns the cells that a strategy without a supernet trains under a seed, as far as they are determined so far.

    Args:
        recipe: all settings.
        strategy: name of the strategy.
        seed: seed of the search.
        values: number of a cell, from 1 → its metric, or None if it was given up. Missing cells have yet to be trained.
        ranked: the best cells of the ranking with which the strategy begins, best first; empty if it begins without one.

    Returns:
        The cells in order. More values make the list longer, but never change its entries.

    Raises:
        InputError: for invalid settings of the strategy, or a user's strategy that fails or proposes no cell of the space.
    """
    sign = 1 if recipe.metric.optimize_mode == 'maximize' else -1
    scores = {number: None if value is None else sign * value for number, value in values.items()}
    method, space = find(strategy), on_data(recipe).space
    drawn: Any = Ranked(space, ranked) if ranked else space
    if method.paper:
        return _proposer(recipe, strategy).named(drawn, seed, scores)
    with in_user_code(strategy, 'strategy', method.file):
        cells = _proposer(recipe, strategy).named(drawn, seed, scores)
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
    if method.cells_key:
        if 'cells' in settings:
            raise InputError(
                f'search.settings of {strategy}: search.{method.cells_key} is the number of cells that it trains, so leave out cells'
            )
        settings['cells'] = getattr(recipe.search, method.cells_key)
    bought = None
    try:
        if recipe.budget is not None:
            bought = affordable_cells(recipe, strategy, _ranking_before(recipe, method, settings))
            settings['cells'] = min(bought, settings.get('cells', 1)) if method.fixed_cells else bought
        method.check({name: value for name, value in settings.items() if not (method.cells_key and name == 'cells')})
        proposer = method.proposer(**settings)
    except ValueError as error:
        cells = '1 cell' if bought == 1 else f'{bought} cells'
        paid = '' if recipe.budget is None else f'a budget of {recipe.budget.passes:g} passes pays for {cells}; '
        raise InputError(f'search.settings of {strategy}: {paid}{error}') from None
    if recipe.task == 'text' and isinstance(getattr(proposer, 'prior', None), Prior):
        raise InputError(f'{strategy}: proxies score networks on images, and the recipe {recipe.name} is for text; use random or evolution')
    return proposer


def _ranking_before(recipe: Recipe, method: Method, settings: Mapping[str, Any]) -> float:
    """Returns the passes of the ranking that these settings of a method ask for; 0 without one. Raises ValueError for wrong settings."""
    if not method.fixed_cells and settings.get('prior') is None:
        return 0.0
    assert method.proposer is not None
    prior = getattr(method.proposer(**{**settings, 'cells': _MANY}), 'prior', None)
    return ranking_passes(recipe, prior) if isinstance(prior, Prior) and recipe.task != 'text' else 0.0
