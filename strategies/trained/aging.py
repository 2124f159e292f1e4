"""Aging evolution (Real et al., AAAI 2019, algorithm 1): proposes the next cell from the scores of earlier ones. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from nni_darts.strategies.settings import Settings, setting
from nni_darts.strategies.trained.base import CellSpace, OneByOne, Scores
from nni_darts.strategies.trained.prior import PRIOR_ALLOWED, PRIOR_MEANING, PriorSetting

__all__ = ['Aging']

_ATTEMPTS = 1000
_NEAR = 50
"""Number of mutations of a parent to try before mutations of mutations."""


Whole = Annotated[int, Field(ge=1)]


class Aging(Settings, OneByOne):
    """Aging evolution: random cells first, then children of the best cell in a sample of the youngest cells. No cell is repeated.

    A cell's parent is drawn once all earlier cells except the last ``parallel`` − 1 are trained. ``parallel`` is a setting, and does not
    depend on the machine, so that the same seed trains the same cells on every machine. With a ``prior``, the first cells are the best of
    many random ones by a zero-cost proxy.

    Raises:
        ValueError: for a value outside its range.

    Example:
        >>> Aging(cells=12, population=4).least
        5
    """

    cells: Whole = setting(24, 'cells that are trained in all')
    population: Whole = setting(10, 'the youngest cells, which compete; the first ones are random')
    sample: Whole = setting(3, 'cells of the population, drawn with replacement, that compete for being the next parent')
    parallel: Whole = setting(2, "a seed's cells that may be in training at a time")
    prior: PriorSetting = setting(None, PRIOR_MEANING, allowed=PRIOR_ALLOWED)

    @model_validator(mode='after')
    def _room_for_children(self) -> Aging:
        if self.cells <= self.population:
            raise ValueError(f'cells must be more than population: of {self.cells} cells the first {self.population} are random')
        if self.parallel > self.population:
            raise ValueError(f'parallel must be at most population, {self.population}, not {self.parallel}')
        return self

    @property
    def least(self) -> int:
        """The fewest cells that include one child: ``population`` + 1."""
        return self.population + 1

    def waits_for(self, number: int) -> int:
        """Returns how many cells must have been trained before a cell is proposed; see :class:`Aging`."""
        return 0 if number <= self.population else number - self.parallel

    def propose(self, space: CellSpace, rng: random.Random, cells: Sequence[Any], scores: Scores) -> Any | None:
        """Returns a new cell near the best of a sample of the population, or a random cell if no cell of the sample has a score."""
        known, youngest = set(cells), len(scores)
        living = range(max(1, youngest - self.population + 1), youngest + 1)
        able = [number for number in living if scores[number] is not None]
        if not able:
            return _new(known, lambda attempt, last: space.random_cell(rng))
        parent = cells[max(rng.choices(able, k=self.sample), key=lambda number: scores[number]) - 1]  # type: ignore[arg-type, return-value]
        return _new(known, lambda attempt, last: space.mutated_cell(parent if last is None or attempt < _NEAR else last, rng))


def _new(known: set[Any], propose: Callable[[int, Any | None], Any]) -> Any | None:
    """Returns the first new proposal (given its number and the preceding proposal); None if many proposals are all known."""
    last: Any | None = None
    for attempt in range(_ATTEMPTS):
        last = propose(attempt, last)
        if last not in known:
            return last
    return None
