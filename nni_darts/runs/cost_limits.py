"""The limits of a recipe: whether any network keeps them, and spaces whose cells are drawn below them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.costs import Costs
from nni_darts.genotypes.program import Program
from nni_darts.genotypes.space import Space
from nni_darts.recipes import Recipe
from nni_darts.recipes.limits import LATENCY
from nni_darts.runs.cost_tables import cost_table
from nni_darts.runs.tasks import task_of
from nni_darts.strategies.penalty import CostPenalty, Penalties

__all__ = ['BelowLimits', 'check_cost', 'check_possible', 'drawn_below', 'heed_costs', 'program_of', 'whole_program']

_DRAWS, _COUNTED = 1000, 100
"""Number of random cells that are drawn before one is built for the limit; number of networks that are counted one by one."""

_spaces: dict[str, Any] = {}
"""Data, space, sizes and limits as text → the space below the limits, because an experiment asks for it with every cell."""


def program_of(recipe: Recipe, data: Any) -> Program | None:
    """Returns the program that finds networks within the recipe's limits; None if the recipe has no limits.

    Args:
        recipe: all settings.
        data: as ``task_of(recipe).load(recipe)`` returns it, or its shape.

    Raises:
        InputError: if no network of the space keeps the limits, the costs in a user's space do not add up, or a table of latencies lacks
            an operation or a shape.
    """
    if recipe.limits is None:
        return None
    program = replace(whole_program(recipe, data), limits=recipe.limits.amounts())
    check_possible(program, recipe)
    return program


def whole_program(recipe: Recipe, data: Any) -> Program:
    """Returns the program of a recipe's space without limits. Arguments as for :func:`program_of`.

    Raises:
        InputError: if the costs in a user's space do not add up.
    """
    space = recipe.space.on_data(lambda: task_of(recipe).facts(data))
    try:
        return Program(space.choices(), cost_table(recipe, data), {})
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            f'limits: {error}; in such a space, only strategies that train cells one by one, such as random and evolution, keep limits'
        ) from None


def check_possible(program: Program, recipe: Recipe) -> None:
    """Raises InputError, which names the smallest possible costs, if no network of the recipe's space keeps the limits."""
    if program.possible():
        return
    least = {measure: program.cheapest(measure) for measure in program.limits}
    where = f'any network of {recipe.space.name} at the size of retrain'
    for measure, smallest in least.items():
        if smallest > program.limits[measure]:
            raise InputError(
                f'limits.{measure} is {program.limits[measure]:,}, and {where} has at least {smallest:,} {_words(measure)}; '
                'raise the limit, or make the network smaller'
            )
    smallest_costs = ', '.join(f'{amount:,} {_words(measure)}' for measure, amount in least.items())
    raise InputError(
        f'limits: no network of {recipe.space.name} at the size of retrain keeps all limits at once, though each limit alone can be kept '
        f'(the smallest possible: {smallest_costs}); raise one of them'
    )


def _words(measure: str) -> str:
    return 'ms of predicted latency' if measure == LATENCY else measure.replace('_', '-')


def heed_costs(strategy: Any, recipe: Recipe, data: Any) -> None:
    """Makes a strategy with a supernet find a cell within the recipe's limits, and gives it the penalties on the expected cost.

    Without limits and penalties, it does nothing.

    Args:
        strategy: the strategy, before it has a supernet.
        recipe: all settings.
        data: as for :func:`program_of`.

    Raises:
        InputError: as for :func:`program_of`; also if a user's strategy cannot keep limits, if costs that are penalised do not add up or do
            not differ, or if the strategy does not move α.
    """
    program = program_of(recipe, data)
    if program is not None:
        _limit(strategy, program)
    if recipe.search.penalty is not None:
        _penalise(strategy, recipe, data)


def _limit(strategy: Any, program: Program) -> None:
    if not hasattr(strategy, 'keep_below'):
        raise InputError(f'limits: a {type(strategy).__name__} cannot keep limits, because it has no method keep_below')
    try:
        strategy.keep_below(program)
    except ValueError as error:
        raise InputError(f'limits: {error}') from None


def _penalise(strategy: Any, recipe: Recipe, data: Any) -> None:
    assert recipe.search.penalty is not None
    if recipe.space.task == 'text':
        raise InputError('search.penalty: all recurrent cells of a size cost the same, so there is nothing to penalise; leave it out')
    if not all(hasattr(part, 'penalty') and part.relaxation.trains_alpha for part in getattr(strategy, 'parts', [None])):
        raise InputError('search.penalty is a term of the loss of α, and this strategy does not move α; leave the penalty out')
    try:
        table = cost_table(recipe, data)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f'search.penalty: {error}; only costs that add up can be penalised') from None
    terms = tuple(CostPenalty(measure, **term.model_dump()) for measure, term in recipe.search.penalty.terms().items())
    for part in strategy.parts:
        part.penalty = Penalties(table, terms)


def check_cost(recipe: Recipe, costs: Costs, strategy: str) -> None:
    """Raises InputError if the cell that a strategy found exceeds a limit of the recipe, which only a user's own strategy can do."""
    for measure, limit in (recipe.limits.amounts() if recipe.limits else {}).items():
        if costs[measure] > limit:
            raise InputError(
                f'limits.{measure} is {limit:,}, and the cell that {strategy} found has {costs[measure]:,} {_words(measure)}; its code '
                'must choose among cells of the space that it is given'
            )


def drawn_below(recipe: Recipe) -> Any:
    """Returns the recipe's space, whose cells are drawn within the recipe's limits.

    Args:
        recipe: all settings, with a space that knows its data.

    Raises:
        InputError: as for :func:`program_of`.
    """
    if recipe.limits is None:
        return recipe.space
    key = repr((recipe.data, recipe.space, recipe.retrain, recipe.limits, recipe.latency))
    if key not in _spaces:
        data, limits = task_of(recipe).shape(recipe), recipe.limits.amounts()
        try:
            program: Program | None = Program(recipe.space.choices(), cost_table(recipe, data), limits)
        except InputError:
            raise
        except ValueError:
            program = None  # the networks are counted one by one
        if program is not None:
            check_possible(program, recipe)

        def costs(cell: AnyGenotype) -> Costs:
            if program is not None:
                return program.table.of(program.choices, recipe.space.sample_of(cell))
            return asdict(task_of(recipe).cost(recipe, 'retrain', cell, data))

        _spaces[key] = BelowLimits(recipe.space, costs, limits, program)
    return _spaces[key]


class BelowLimits:
    """A space whose cells are drawn within limits; everything else is as in the whole space.

    Args:
        space: the whole space.
        costs: cell → costs of its network.
        limits: measure → largest cost.
        program: finds cells within the limits where drawing does not; None if costs do not add up.
    """

    def __init__(self, space: Space, costs: Callable[[AnyGenotype], Costs], limits: Costs, program: Program | None) -> None:
        self._space = space
        self._costs = costs
        self._limits = limits
        self._program = program
        self._draws = _COUNTED if program is None else _DRAWS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def holds(self, cell: AnyGenotype) -> bool:
        """Returns whether the network of a cell keeps the limits."""
        costs = self._costs(cell)
        return all(costs[measure] <= limit for measure, limit in self._limits.items())

    def random_cell(self, rng: random.Random) -> AnyGenotype:
        """Draws a cell uniformly among those within the limits.

        If none of 1,000 cells of the whole space is within them, the cell is the best by random scores, which is not quite uniform.

        Raises:
            InputError: if costs do not add up, and none of 100 cells is within the limits.
        """
        for _ in range(self._draws):
            cell = self._space.random_cell(rng)
            if self.holds(cell):
                return cell
        if self._program is None:
            costs = [self._costs(self._space.random_cell(random.Random(seed))) for seed in range(10)]
            smallest = ', '.join(f'{min(cost[measure] for cost in costs):,} {_words(measure)}' for measure in self._limits)
            raise InputError(
                f'limits: none of {self._draws} random networks of {self._space.name} keeps them; the smallest of ten have {smallest}; '
                'raise the limits, or make the network smaller'
            )
        choices = self._program.choices
        scores = {(label, value): rng.random() for label, values in choices.operations.items() for value in values}
        scores |= {(label, value): rng.random() for label, inputs in choices.inputs.items() for value in inputs.values}
        sample = self._program.best(scores)
        assert sample is not None  # it has been checked that there is one
        return self._space.genotype_of(sample)

    def mutated_cell(self, cell: AnyGenotype, rng: random.Random) -> AnyGenotype:
        """Returns a copy of a cell with one choice changed that is within the limits; with more changes if there is no such copy."""
        for _ in range(self._draws):
            child = self._space.mutated_cell(cell, rng)
            if self.holds(child):
                return child
        child = cell
        for _ in range(self._draws):
            child = self._space.mutated_cell(child, rng)
            if child != cell and self.holds(child):
                return child
        return self.random_cell(rng)
