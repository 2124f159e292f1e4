"""Random search, the baseline of the DARTS paper (Liu et al., ICLR 2019, section 3; Li & Talwalkar, UAI 2019). Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from nni_darts.strategies.settings import setting
from nni_darts.strategies.trained.base import CellSpace, OneByOne, Scores
from nni_darts.strategies.trained.prior import PriorSettings

__all__ = ['RandomCells']


class RandomCells(PriorSettings, OneByOne):
    """Draws every cell uniformly. Cells do not depend on each other, so all can be trained at the same time.

    With a ``prior``, the cells are the best of many by a zero-cost proxy.

    Raises:
        ValueError: for fewer than one cell.

    Example:
        >>> RandomCells(cells=3).waits_for(3)
        0
    """

    cells: Annotated[int, Field(ge=1)] = setting(24, 'cells that are trained in all', recipe='search.random_samples')

    def waits_for(self, number: int) -> int:
        """Returns 0, because a random cell does not depend on any score."""
        return 0

    def propose(self, space: CellSpace, rng: random.Random, cells: Sequence[Any], scores: Scores) -> Any:
        """Draws the next cell. Arguments as for :meth:`OneByOne.propose`."""
        return space.random_cell(rng)
