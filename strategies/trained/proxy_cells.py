"""Search by a zero-cost proxy (Abdelfattah et al., ICLR 2021): the best of many untrained networks. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from nni_darts.strategies.settings import setting
from nni_darts.strategies.trained.base import CellSpace, OneByOne, Scores
from nni_darts.strategies.trained.prior import Prior

__all__ = ['ProxyCells']


class ProxyCells(Prior, OneByOne):
    """Ranks random cells by a proxy of their untrained networks. The best is the result, or the best of ``cells`` after short trainings.

    Raises:
        ValueError: for an unknown proxy, or a number outside its range.

    Example:
        >>> ProxyCells(draw=100).prior
        Prior(proxy='synflow', draw=100, batch_size=64)
    """

    cells: Annotated[int, Field(ge=1)] = setting(1, 'best-ranked cells of which a short training chooses one')

    @property
    def prior(self) -> Prior:
        """The ranking, with these settings."""
        return Prior(proxy=self.proxy, draw=self.draw, batch_size=self.batch_size)

    def waits_for(self, number: int) -> int:
        """Returns 0, because the ranking is known before any training."""
        return 0

    def propose(self, space: CellSpace, rng: random.Random, cells: Sequence[Any], scores: Scores) -> Any:
        """Takes the next cell of the ranking, which is the next random cell of ``space``. Arguments as for :meth:`OneByOne.propose`."""
        return space.random_cell(rng)
