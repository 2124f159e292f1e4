"""The cells that strategies without a supernet train one by one. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni_darts._lazy import in_user_code
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.budget import affordable_cells, halving_of
from nni_darts.strategies.method import Method
from nni_darts.strategies.registry import find, full_name
from nni_darts.strategies.trained import OneByOne, Prior, Scores
from nni_darts.strategies.trained.halving import Halving
from nni_darts.strategies.trained.prior import Ranked

__all__ = [
    'Part',
    'cells_to_train',
    'least_cells',
    'number_of_cells',
    'on_data',
    'own_settings',
    'parts_to_train',
    'prior_of',
    'ranked_cells',
    'ranking_passes',
    'rungs_of',
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
    sign = _sign(recipe)
    scores = {number: None if value is None else sign * value for number, value in values.items()}

    def scores_of(count: int) -> Scores | None:
        known = range(1, count + 1)
        return {number: scores[number] for number in known} if all(number in scores for number in known) else None

    return _proposed(recipe, strategy, seed, scores_of, ranked)[0]


def _sign(recipe: Recipe) -> int:
    """Returns the factor that makes a larger metric the better one."""
    return 1 if recipe.metric.optimize_mode == 'maximize' else -1


def _proposed(
    recipe: Recipe, strategy: str, seed: int, scores_of: Callable[[int], Scores | None], ranked: Sequence[AnyGenotype]
) -> tuple[list[AnyGenotype], bool]:
    """Returns the cells that a strategy proposes by now, and whether it will propose no other; arguments as for ``OneByOne.proposed``."""
    method, space = find(strategy), on_data(recipe).space
    drawn: Any = Ranked(space, ranked) if ranked else space
    if method.paper:
        return _proposer(recipe, strategy).proposed(drawn, seed, scores_of)
    with in_user_code(strategy, 'strategy', method.file):
        cells, over = _proposer(recipe, strategy).proposed(drawn, seed, scores_of)
    for cell in cells or [None]:
        if not (isinstance(cell, AnyGenotype) and space.accepts(cell)):
            raise InputError(
                f'strategy {strategy} proposes {str(cell)[:60]!r}, an object of {type(cell).__name__}; propose must return a cell of '
                f'{space.name}, as space.random_cell(rng) and space.mutated_cell(cell, rng) do'
            )
    return cells, over


@dataclass(frozen=True)
class Part:
    """A training of a cell, or with successive halving the part of it that leads to a rung.

    Attributes:
        number: number of the cell, from 1.
        rung: number of the rung, from 0; always 0 without successive halving.
        genotype: the cell.
        epochs: epochs before and after this part; None for a whole training.
    """

    number: int
    rung: int
    genotype: AnyGenotype
    epochs: tuple[int, int] | None = None


def parts_to_train(
    recipe: Recipe, strategy: str, seed: int, values: Mapping[tuple[int, int], float | None], ranked: Sequence[AnyGenotype] = ()
) -> list[Part]:
    """Returns the trainings of cells that a strategy without a supernet trains under a seed, as far as they are determined so far.

    With successive halving, these are parts of trainings (:class:`nni_darts.strategies.trained.halving.Halving`). The score on which a
    strategy bases its next cell is then that after the highest rung that the earlier cells alone lead to.

    Args:
        recipe: all settings.
        strategy: name of the strategy.
        seed: seed of the search.
        values: (number of a cell, number of a rung) → its metric, or None if it was given up. Missing parts have yet to be trained.
        ranked: as for :func:`cells_to_train`.

    Raises:
        InputError: as for :func:`cells_to_train`.
    """
    halving = rungs_of(recipe, strategy)
    if halving is None:
        found = cells_to_train(recipe, strategy, seed, {number: value for (number, _), value in values.items()}, ranked)
        return [Part(number, 0, genotype) for number, genotype in enumerate(found, start=1)]
    scores = {key: None if value is None else _sign(recipe) * value for key, value in values.items()}
    together = ranked_cells(recipe, strategy) == number_of_cells(recipe, strategy)

    def scores_of(count: int) -> Scores | None:
        parts = halving.trainings(count, scores, closed=False, together=together)
        if any(part not in scores for part in parts):
            return None
        last: dict[int, float | None] = {}
        for number, rung in parts:
            last[number] = last.get(number) if scores[number, rung] is None else scores[number, rung]
        return last

    cells, over = _proposed(recipe, strategy, seed, scores_of, ranked)
    steps = tuple(zip((0, *halving.rungs), halving.rungs))
    parts = halving.trainings(len(cells), scores, closed=over, together=together)
    return [Part(number, rung, cells[number - 1], steps[rung]) for number, rung in parts]


def rungs_of(recipe: Recipe, strategy: str) -> Halving | None:
    """Returns the rungs of the short trainings of a strategy's cells; None if each is trained in full, as a single cell always is."""
    one_by_one = find(strategy).one_by_one
    return halving_of(recipe) if one_by_one and recipe.select.halving is not None and number_of_cells(recipe, strategy) > 1 else None


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
