"""Aging evolution (Real et al., AAAI 2019, algorithm 1): which cell is trained next, given how good the others are. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from nni_darts.strategies.settings import Settings, setting

__all__ = ['Aging', 'evolved']

Cell = TypeVar('Cell', bound=Hashable)

_ATTEMPTS = 1000
_NEAR = 50
"""So many mutations of a parent are tried before mutations of mutations are."""


Whole = Annotated[int, Field(ge=1)]


class Aging(Settings):
    """Settings of aging evolution.

    A cell's parent is drawn once all but the last ``parallel`` − 1 cells before it are trained, and these are not waited for. That is a
    setting, and not what the machine does, so that the same seed trains the same cells on any machine.

    Raises:
        ValueError: for a value outside its range.
    """

    cells: Whole = setting(24, 'cells that are trained in all')
    population: Whole = setting(10, 'the youngest cells, which compete; the first ones are random')
    sample: Whole = setting(3, 'cells of the population, drawn with replacement, that compete for being the next parent')
    parallel: Whole = setting(2, "a seed's cells that may be in training at a time")

    @model_validator(mode='after')
    def _room_for_children(self) -> Aging:
        if self.cells <= self.population:
            raise ValueError(f'cells must be more than population: of {self.cells} cells the first {self.population} are random')
        if self.parallel > self.population:
            raise ValueError(f'parallel must be at most population, {self.population}, not {self.parallel}')
        return self


def evolved(
    settings: Aging,
    seed: int,
    draw: Callable[[random.Random], Cell],
    mutate: Callable[[Cell, random.Random], Cell],
    scores: Mapping[int, float | None],
) -> list[Cell]:
    """The cells that can be named by now, in their order.

    A pure function: the same seed and scores give the same cells, and more scores only add cells at the end. No cell comes twice.

    Args:
        seed: of everything that is drawn.
        draw: a random cell; ``mutate``: another cell near a given one.
        scores: number of a cell, from 1 → how good it is, larger is better; None for one that was trained without a result. Cells that
            are not there are still in training.

    Returns:
        At most ``settings.cells`` cells; fewer in the end only where a space has no more of them.
    """
    cells: list[Cell] = []
    known: set[Cell] = set()
    beginning = random.Random(seed)
    while len(cells) < settings.cells:
        number = len(cells) + 1
        if number <= settings.population:
            cell = _new(known, lambda attempt, last: draw(beginning))
        else:
            youngest = number - settings.parallel
            grown = range(max(1, youngest - settings.population + 1), youngest + 1)
            if any(other not in scores for other in range(1, youngest + 1)):
                break
            cell = _child(settings, random.Random(f'{seed} {number}'), {n: cells[n - 1] for n in grown}, draw, mutate, scores, known)
        if cell is None:
            break
        cells.append(cell)
        known.add(cell)
    return cells


def _child(
    settings: Aging,
    rng: random.Random,
    population: Mapping[int, Cell],
    draw: Callable[[random.Random], Cell],
    mutate: Callable[[Cell, random.Random], Cell],
    scores: Mapping[int, float | None],
    known: set[Cell],
) -> Cell | None:
    """A cell that is not known yet, near the best of a sample of the population; a random one if none of them has a score."""
    able = [number for number in population if scores[number] is not None]
    if not able:
        return _new(known, lambda attempt, last: draw(rng))
    parent = population[max(rng.choices(able, k=settings.sample), key=lambda number: scores[number])]  # type: ignore[arg-type, return-value]
    return _new(known, lambda attempt, last: mutate(parent if last is None or attempt < _NEAR else last, rng))


def _new(known: set[Cell], propose: Callable[[int, Cell | None], Cell]) -> Cell | None:
    """The first proposal (given its number and the one before) that is not known; None if there is none among many."""
    last: Cell | None = None
    for attempt in range(_ATTEMPTS):
        last = propose(attempt, last)
        if last not in known:
            return last
    return None
