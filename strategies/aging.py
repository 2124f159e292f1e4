"""Aging evolution (Real et al., AAAI 2019, algorithm 1): which cell is trained next, given how good the others are. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from nni_darts.strategies.settings import check_whole

__all__ = ['Aging', 'evolved']

Cell = TypeVar('Cell', bound=Hashable)

_ATTEMPTS = 1000
_NEAR = 50
"""So many mutations of a parent are tried before mutations of mutations are."""


@dataclass(frozen=True)
class Aging:
    """Settings of aging evolution.

    Attributes:
        cells: how many are trained in all.
        population: how many of the youngest compete; the first ones are random.
        sample: how many of them, drawn with replacement, compete for being the next parent.
        parallel: how many may be in training at a time: a cell's parent is drawn once all but the last ``parallel`` − 1 cells before it
            are trained, and these are not waited for. It is a setting, and not what the machine does, so that the same seed trains the
            same cells on any machine.

    Raises:
        ValueError: for a value outside its range.
    """

    cells: int = 24
    population: int = 10
    sample: int = 3
    parallel: int = 2

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            check_whole(name, getattr(self, name))
        if self.cells <= self.population:
            raise ValueError(f'cells must be more than population: of {self.cells} cells the first {self.population} are random')
        if self.parallel > self.population:
            raise ValueError(f'parallel must be at most population, {self.population}, not {self.parallel}')


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
