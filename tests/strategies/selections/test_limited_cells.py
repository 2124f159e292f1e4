"""The cells that the selections of all strategies derive within random limits, counted one by one as ``nni-darts cost`` counts."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.cells import cells_to_train
from nni_darts.runs.cost_limits import heed_costs
from nni_darts.runs.costs import configured_strategy, cost_of
from nni_darts.runs.tasks import task_of
from nni_darts.strategies import METHODS, DifferentiableStrategy
from nni_darts.strategies.selections.scoring import Scoring

STRATEGIES = (*METHODS, 'darts-1st+pt', 'darts-1st+pt-mag', 'pc-darts+pt', 'sgas+pt')
SPACES = {'darts': STRATEGIES, 'nasbench201': tuple(name for name in STRATEGIES if name != 'p-darts')}
CELLS = 1 + 1000 // sum(map(len, SPACES.values()))
"""Number of cells of each strategy in each space: 1,000 in total."""

EPOCHS = 50
"""Epochs of a search, after which ``sgas`` has decided all edges by its published schedule."""

SETTINGS = {
    'space.channels': 4,
    'space.cells': 3,
    'retrain.channels': 4,
    'retrain.cells': 3,
    'search.random_samples': CELLS,
    'search.settings': {
        'enas': {'samples': 4, 'finalists': 2},
        'random-ws': {'samples': 4, 'finalists': 2},
        'p-darts': {'cells': [3, 3, 3]},
        'evolution': {'cells': CELLS, 'population': 4, 'sample': 2},
    },
}


class RandomScores(Scoring):
    """Random numbers in place of the validation of a supernet, so that decisions are those of no supernet in particular."""

    def scores(
        self, module: Any, label: str, variants: Sequence[Any], sharing: Callable[[], AbstractContextManager[Any]] | None = None
    ) -> list[float]:
        return [random.random() for _ in variants]


class OfStrategy:
    """The attributes of a search's module that decisions by random scores read."""

    def __init__(self, strategy: DifferentiableStrategy) -> None:
        self.strategy, self.model = strategy, None


@functools.cache
def loaded(space: str) -> Recipe:
    return Recipe.load('digits', {**SETTINGS, 'space.name': space, 'space.nodes': 2 if space == 'darts' else 4})


@functools.cache
def costs_of_cells(space: str) -> list[dict[str, int]]:
    """Returns the costs of 40 random cells."""
    recipe, rng = loaded(space), random.Random(1)
    return [cost_of(recipe.space.random_cell(rng), recipe, task_of(recipe).shape(recipe)) for _ in range(40)]


def limits_of_a_cell(recipe: Recipe, rng: random.Random) -> dict[str, int]:
    """Returns limits that some cell keeps exactly: the costs of the one with the fewest parameters of a few random cells."""
    return min(rng.sample(costs_of_cells(recipe.space.name), rng.randrange(1, 6)), key=lambda cost: cost['parameters'])


def searched(strategy: DifferentiableStrategy) -> None:
    """Goes through a search whose α is random after each epoch, and through the events of its selection."""
    selection, architecture = strategy.selection, strategy.architecture
    for part in (selection, getattr(selection, 'operations', None)):
        for name in ('scoring', 'first', 'final'):
            if isinstance(getattr(part, name, None), Scoring):
                setattr(part, name, RandomScores(batches=getattr(part, name).batches))
    for epoch in range(1, 1 + EPOCHS + selection.epochs(architecture)):
        with torch.no_grad():
            for alpha in architecture.arch_parameters():
                alpha.normal_(std=2)
        selection.observe(epoch, EPOCHS, architecture, strategy.relaxation)
        for _ in range(selection.rounds_due(epoch, EPOCHS, architecture)):
            selection.decide(architecture, OfStrategy(strategy))  # type: ignore[arg-type]


def derived(recipe: Recipe, name: str, data: Any) -> AnyGenotype:
    """Returns the cell that a strategy with a supernet derives from random α."""
    strategy = configured_strategy(recipe, name)
    heed_costs(strategy, recipe, data)
    for space, part in strategy.stages(task_of(recipe).space(recipe, data)):
        part.mutate_model(space)
        searched(part)
    return recipe.space.genotype_of(strategy.select())


def cells_of(recipe: Recipe, name: str, data: Any) -> Iterator[tuple[AnyGenotype, dict[str, int]]]:
    """Yields cells of a strategy, each with its limits."""
    rng = random.Random(name)
    torch.manual_seed(rng.randrange(2**31))
    random.seed(name)
    if METHODS.get(name) is not None and METHODS[name].one_by_one:
        limits = limits_of_a_cell(recipe, rng)
        values: dict[int, float | None] = {}
        while len(values) < CELLS:  # each cell of evolution depends on the values of earlier ones
            cells = cells_to_train(recipe.changed({'limits': limits}, source='test'), name, 1, values)
            values = {number: rng.random() for number in range(1, 1 + len(cells))}
        yield from ((cell, limits) for cell in cells[:CELLS])
        return
    for _ in range(CELLS):
        limits = limits_of_a_cell(recipe, rng)
        yield derived(recipe.changed({'limits': limits}, source='test'), name, data), limits


@pytest.mark.slow
@pytest.mark.parametrize(('space', 'strategy'), [(space, name) for space, names in SPACES.items() for name in names])
def test_a_thousand_derived_cells_are_within_their_limits(space: str, strategy: str) -> None:
    recipe = loaded(space)
    data, found = task_of(recipe).shape(recipe), set()
    for cell, limits in cells_of(recipe, strategy, data):
        costs = cost_of(cell, recipe, data)
        assert all(costs[measure] <= limit for measure, limit in limits.items()), (cell, costs, limits)
        found.add(cell.code())
    # The cells differ, as their limits and α do; a fixed α prefers the first of all operations, which tie.
    assert strategy == 'fixed-alpha' or len(found) > CELLS // 4


def test_there_are_a_thousand_of_them() -> None:
    assert CELLS * sum(map(len, SPACES.values())) >= 1000
