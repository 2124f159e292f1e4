"""Successive halving: only the best of the cells that are trained for a few epochs are trained on (Jamieson & Talwalkar, AISTATS 2016).

For cells that are proposed one after the other, decisions are taken as results come (Li et al., MLSys 2020), but in the order of the
cells' numbers instead of the order of time. So they depend neither on the machine nor on the number of concurrent trials. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ['Halving', 'RungScores', 'Training']

RungScores = Mapping[tuple[int, int], float | None]
"""(number of a cell from 1, number of a rung from 0) → score after that rung (larger is better); None if the training gave no result."""


class Training(NamedTuple):
    """The part of a cell's training that leads to a rung.

    Attributes:
        number: number of the cell, from 1.
        rung: number of the rung, from 0.
    """

    number: int
    rung: int


@dataclass(frozen=True)
class Halving:
    """The rungs of successive halving: the numbers of epochs after which cells are compared.

    Attributes:
        eta: one of ``eta`` cells of a rung is promoted, which means that its training continues to the next rung.
        rungs: number of epochs of each rung; the last one is the whole training.

    Example:
        >>> Halving.of(3, 1, 12).rungs
        (1, 3, 9, 12)
        >>> Halving.of(3, 1, 12).counts(10)
        (10, 3, 1, 1)
    """

    eta: int
    rungs: tuple[int, ...]

    @classmethod
    def of(cls, eta: int, least: int, most: int) -> Halving:
        """Returns the rungs from ``least`` to ``most`` epochs, each but the last ``eta`` times as long as the one before."""
        rungs = [least]
        while rungs[-1] * eta < most:
            rungs.append(rungs[-1] * eta)
        return cls(eta, tuple(rungs) if least >= most else (*rungs, most))

    def counts(self, cells: int) -> tuple[int, ...]:
        """Returns the number of cells that reach each rung: n, ⌊n / eta⌋, …, at least one."""
        counts = [cells]
        for _ in self.rungs[1:]:
            counts.append(max(1, counts[-1] // self.eta))
        return tuple(counts)

    def epochs(self, cells: int) -> int:
        """Returns the number of epochs in all: a promoted cell is trained only from one rung to the next."""
        steps = [after - before for before, after in zip((0, *self.rungs), self.rungs)]
        return sum(count * step for count, step in zip(self.counts(cells), steps))

    def entrants(self, known: int, scores: RungScores, *, closed: bool, together: bool) -> list[list[int]]:
        """Returns the numbers of the cells of each rung, in the order in which they enter it, as far as scores decide that.

        If all cells are known from the start (``together``), the best ⌊n / eta⌋ of a rung, at least one, are promoted once all n cells
        have been trained up to it. Otherwise, each time the first eta, 2 eta, … cells of a rung have been trained, the best of them that
        has not been promoted yet is promoted. If no further cell can come and none has been promoted, the best is. More scores and more
        known cells make the lists longer, but change no entry. In a tie, the cell that entered first is better; a cell without a score is
        not promoted.

        Args:
            known: number of cells that have been proposed.
            scores: scores so far.
            closed: whether no further cell will be proposed.
            together: whether all cells are proposed before any has a score.
        """
        rungs = [list(range(1, known + 1))]
        for rung in range(len(self.rungs) - 1):
            here = rungs[-1]
            done = all((number, rung) in scores for number in here)
            if together:
                promoted = self._best(here, rung, scores, max(1, len(here) // self.eta)) if closed and done and here else []
            else:
                promoted = self._one_by_one(here, rung, scores)
                if closed and done and not promoted:
                    promoted = self._best(here, rung, scores, 1)
            rungs.append(promoted)
            closed = closed and done
        return rungs

    def trainings(self, known: int, scores: RungScores, *, closed: bool, together: bool) -> list[Training]:
        """Returns all parts of trainings that are decided, rung by rung. Arguments as for :meth:`entrants`."""
        rungs = self.entrants(known, scores, closed=closed, together=together)
        return [Training(number, rung) for rung, numbers in enumerate(rungs) for number in numbers]

    def _best(self, here: Sequence[int], rung: int, scores: RungScores, count: int) -> list[int]:
        able = [(score, number) for number in here if (score := scores[number, rung]) is not None]
        return [number for _, number in sorted(able, key=lambda pair: -pair[0])[:count]]

    def _one_by_one(self, here: Sequence[int], rung: int, scores: RungScores) -> list[int]:
        promoted: list[int] = []
        for count in range(self.eta, len(here) + 1, self.eta):
            first = here[:count]
            if any((number, rung) not in scores for number in first):
                break
            promoted += self._best([number for number in first if number not in promoted], rung, scores, 1)
        return promoted
