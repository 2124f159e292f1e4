"""The interface of strategies without a supernet, which train cells one by one and keep the best. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ['CellSpace', 'OneByOne', 'Scores']

Cell = Any
"""A hashable description of an architecture, such as a genotype."""

Scores = Mapping[int, float | None]
"""Number of a cell, from 1 → its score (larger is better); None for a cell whose training gave no result."""


class CellSpace(Protocol):
    """The space from which cells are drawn: the space of a recipe, or any NNI model space."""

    def random_cell(self, rng: random.Random) -> Hashable:
        """Draws a cell uniformly."""

    def mutated_cell(self, cell: Any, rng: random.Random) -> Hashable:
        """Returns a cell that differs from another one in one choice."""


class OneByOne:
    """Proposes the cells of a search one by one; each is trained separately for a short time, and the best cell is kept.

    A subclass implements :meth:`propose`, and has an attribute ``cells``, the total number of cells to train, which is also a keyword
    argument of its constructor. In an experiment, each cell is a trial, and several cells may be in training at the same time.

    Attributes:
        cells: total number of cells to train.
        least: smallest number of cells with which the strategy makes sense; a time limit never plans fewer cells.

    Example:
        >>> class Draw(OneByOne):
        ...     def __init__(self, cells: int = 8) -> None:
        ...         self.cells = cells
        ...
        ...     def propose(self, space, rng, cells, scores):
        ...         return space.random_cell(rng)
    """

    one_by_one = True

    @property
    def least(self) -> int:
        """The smallest number of cells with which the strategy makes sense."""
        return 1

    def waits_for(self, number: int) -> int:
        """Returns how many cells must have been trained before a cell is proposed: all earlier ones, unless overridden.

        Args:
            number: number of the cell, from 1.

        A smaller result lets more cells be in training at the same time.
        """
        return number - 1

    def propose(self, space: CellSpace, rng: random.Random, cells: Sequence[Cell], scores: Scores) -> Cell | None:
        """Returns the next cell, or None if the space has no further cell to propose.

        Args:
            space: draws and mutates cells.
            rng: the only source of random numbers, so that the same seed and scores give the same cells.
            cells: all earlier cells; the first cell has number 1.
            scores: scores of the first cells; :meth:`waits_for` gives their number.
        """
        raise NotImplementedError

    def named(self, space: CellSpace, seed: int, scores: Scores) -> list[Cell]:
        """Returns all cells that can be proposed by now, in order.

        A pure function: the same seed and scores give the same cells, and more scores only add cells at the end.

        Args:
            space: draws and mutates cells.
            seed: seed of all random numbers.
            scores: scores of all cells whose training has ended.

        Returns:
            At most ``cells`` cells. Once all are trained, there are fewer only if the space has no further cells.

        Raises:
            ValueError: if :meth:`waits_for` returns anything but a number of earlier cells.
        """
        return self.proposed(space, seed, lambda awaited: _first(scores, awaited))[0]

    def proposed(self, space: CellSpace, seed: int, scores_of: Callable[[int], Scores | None]) -> tuple[list[Cell], bool]:
        """Returns all cells that can be proposed by now, in order, and whether no further cell will be proposed.

        Args:
            space: draws and mutates cells.
            seed: seed of all random numbers.
            scores_of: number of cells → their scores, on which the next proposal depends; None if these are not known yet.

        Raises:
            ValueError: as for :meth:`named`.
        """
        cells: list[Cell] = []
        beginning = random.Random(seed)
        for number in range(1, self.cells + 1):  # type: ignore[attr-defined]
            awaited = self.waits_for(number)
            if not isinstance(awaited, int) or not 0 <= awaited < number:
                raise ValueError(f'waits_for({number}) must be a whole number from 0 to {number - 1}, the earlier cells, not {awaited!r}')
            scores = scores_of(awaited)
            if scores is None:
                return cells, False
            rng = random.Random(f'{seed} {number}') if awaited else beginning
            cell = self.propose(space, rng, cells, scores)
            if cell is None:
                break
            cells.append(cell)
        return cells, True


def _first(scores: Scores, count: int) -> Scores | None:
    """Returns the scores of the first ``count`` cells; None if one is missing."""
    known = range(1, count + 1)
    return {number: scores[number] for number in known} if all(number in scores for number in known) else None
