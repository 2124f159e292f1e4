from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from statistics import fmean
from typing import Any, NamedTuple

import pytest

from nni_darts.strategies.trained import Aging
from tests.reference.aging import aging_evolution

BITS = 12


class Space(NamedTuple):
    random_cell: Callable[[random.Random], Any]
    mutated_cell: Callable[[Any, random.Random], Any]


def draw(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randrange(3) for _ in range(BITS))


def mutate(cell: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    position = rng.randrange(len(cell))
    return (*cell[:position], rng.choice([value for value in range(3) if value != cell[position]]), *cell[position + 1 :])


def value(cell: tuple[int, ...]) -> float:
    """Every cell has a value of its own."""
    return sum(cell) + random.Random(str(cell)).random() / 100


def run(settings: Aging, seed: int, order: int = 0, fail: frozenset[int] = frozenset()) -> list[tuple[int, ...]]:
    """Trains what is named, a random one of it at a time; nothing that was named changes."""
    rng = random.Random(order)
    scores: dict[int, float | None] = {}
    cells: list[tuple[int, ...]] = []
    while True:
        before, cells = cells, settings.named(Space(draw, mutate), seed, scores)
        assert cells[: len(before)] == before
        ready = [number for number in range(1, len(cells) + 1) if number not in scores]
        if len(cells) > settings.population:
            assert len(ready) <= settings.parallel
        if not ready:
            return cells
        number = rng.choice(ready)
        scores[number] = None if number in fail else value(cells[number - 1])


@pytest.mark.parametrize('seed', range(5))
def test_one_at_a_time_is_the_papers_algorithm(seed: int) -> None:
    cells = run(Aging(cells=60, population=8, sample=3, parallel=1), seed)
    assert cells == [cell for cell, _ in aging_evolution(60, 8, 3, seed, draw, mutate, value)]


@pytest.mark.parametrize('parallel', [2, 5, 8])
def test_the_order_in_which_trainings_end_changes_nothing(parallel: int) -> None:
    settings = Aging(cells=40, population=8, sample=3, parallel=parallel)
    runs = [run(settings, 1, order) for order in range(5)]
    assert all(cells == runs[0] for cells in runs)
    assert len(runs[0]) == len(set(runs[0])) == 40
    assert run(settings, 2) != runs[0]


def test_the_old_die() -> None:
    """A child is one step from a cell of the population, whatever the older ones were worth."""
    settings = Aging(cells=60, population=6, sample=6, parallel=2)
    cells = run(settings, 3)
    for number in range(settings.population + 1, settings.cells + 1):
        living = cells[max(0, number - 2 - settings.population) : number - 2]
        assert any(sum(a != b for a, b in zip(cells[number - 1], cell)) == 1 for cell in living)


def test_it_finds_better_cells_than_random_search() -> None:
    found = [max(map(value, run(Aging(cells=60, population=10, sample=5, parallel=2), seed))) for seed in range(5)]
    drawn = []
    for seed in range(5):
        rng = random.Random(seed)
        drawn.append(max(value(draw(rng)) for _ in range(60)))
    assert fmean(found) > fmean(drawn) + 2


def test_cells_without_a_result_have_no_children() -> None:
    settings = Aging(cells=30, population=4, sample=2, parallel=2)
    assert len(run(settings, 1, fail=frozenset({2, 9, 10, 11, 12}))) == 30
    assert len(set(run(settings, 1, fail=frozenset(range(1, 31))))) == 30


def test_a_small_space_comes_to_its_end() -> None:
    scores: dict[int, float | None] = {}
    settings = Aging(cells=20, population=3, sample=2, parallel=1)

    def step(cell: int, rng: random.Random) -> int:
        return (cell + rng.choice([-1, 1])) % 7

    space = Space(lambda rng: rng.randrange(7), step)
    while len(cells := settings.named(space, 1, scores)) > len(scores):
        number = len(scores) + 1
        scores[number] = -abs(cells[number - 1] - 5.0)
    assert Counter(cells) == Counter(range(7))


@pytest.mark.parametrize(
    ('settings', 'names'),
    [
        ({'cells': 10, 'population': 10}, 'of 10 cells the first 10 are random'),
        ({'parallel': 11}, 'parallel must be at most population, 10, not 11'),
        ({'sample': 0}, 'sample must be a whole number from 1, not 0'),
        ({'cells': 24.0}, '24.0'),
        ({'population': True}, 'True'),
    ],
)
def test_impossible_settings(settings: dict, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Aging(**settings)
