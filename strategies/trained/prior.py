"""A ranking of untrained networks by a zero-cost proxy, which chooses the first cells of a search. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from nni_darts.strategies.settings import Settings, setting
from nni_darts.strategies.trained.base import CellSpace

__all__ = [
    'PRIOR_ALLOWED',
    'PRIOR_MEANING',
    'PROXY_NAMES',
    'Prior',
    'PriorSetting',
    'PriorSettings',
    'Ranked',
    'best_first',
    'distinct_cells',
]

ProxyName = Literal['synflow', 'jacob_cov', 'naswot', 'snip', 'grad_norm', 'parameters', 'multiply_adds', 'zen']

PROXY_NAMES: tuple[str, ...] = get_args(ProxyName)
"""The keys of :data:`nni_darts.strategies.proxies.PROXIES`."""

_PASSES = {'jacob_cov': 1.0, 'naswot': 1.0, 'snip': 1.0, 'grad_norm': 1.0, 'zen': 2 / 3}
"""Proxy → passes of a network over the batch. synflow reads a single image of ones, and sizes are counted without computing."""


class Prior(Settings):
    """Draws cells, ranks their untrained networks by a proxy, and begins the search with the best of them.

    Raises:
        ValueError: for an unknown proxy, or a number outside its range.

    Example:
        >>> Prior(proxy='naswot', draw=100).images
        6400.0
    """

    proxy: ProxyName = setting('synflow', 'the proxy by which untrained networks are ranked')
    draw: Annotated[int, Field(ge=1)] = setting(1000, 'cells that are drawn and ranked')
    batch_size: Annotated[int, Field(ge=2)] = setting(64, 'training images on which networks are scored')

    @property
    def images(self) -> float:
        """The cost of the ranking: the number of images that go forward and backward through a network (see :mod:`runs.budget`)."""
        return self.draw * (1.0 if self.proxy == 'synflow' else self.batch_size * _PASSES.get(self.proxy, 0.0))


def _prior(value: Any) -> Prior | None:
    if value is None or isinstance(value, Prior):
        return value
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f'prior must be null or a mapping of {", ".join(Prior.model_fields)}, such as {{proxy: synflow}}, not {value!r}')
    try:
        return Prior(**value)
    except ValueError as error:
        raise ValueError(f'prior: {error}') from None


PriorSetting = Annotated[Any, AfterValidator(_prior)]
"""The setting ``prior`` of a strategy: null, or a mapping of the settings of :class:`Prior`."""

PRIOR_MEANING = 'proxy that ranks cells before the first one is trained, and how many cells it ranks'
PRIOR_ALLOWED = f'null or a mapping of {", ".join(Prior.model_fields)}'


class PriorSettings(Settings):
    """The setting of strategies whose first cells a proxy may choose."""

    prior: PriorSetting = setting(None, PRIOR_MEANING, allowed=PRIOR_ALLOWED)


class Ranked:
    """A space whose first random cells are given ones, best first; all other cells are those of the space.

    Args:
        space: draws and mutates cells.
        cells: the first cells.
    """

    def __init__(self, space: CellSpace, cells: Sequence[Any]) -> None:
        self._space = space
        self._rest: Iterator[Any] = iter(cells)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def random_cell(self, rng: random.Random) -> Any:
        """Returns the next of the given cells; once there is none left, draws a cell uniformly."""
        cell = next(self._rest, None)
        return self._space.random_cell(rng) if cell is None else cell

    def mutated_cell(self, cell: Any, rng: random.Random) -> Any:
        """Returns a cell that differs from another one in one choice."""
        return self._space.mutated_cell(cell, rng)


def distinct_cells(space: CellSpace, seed: int, draw: int) -> list[Any]:
    """Returns the different ones among the first ``draw`` cells that random search draws under a seed, in their order."""
    rng = random.Random(seed)
    return list(dict.fromkeys(space.random_cell(rng) for _ in range(draw)))


def best_first(cells: Sequence[Any], scores: Sequence[float]) -> list[Any]:
    """Returns cells in the order of their scores, the largest first; cells with equal scores stay in their order."""
    return [cells[index] for index in sorted(range(len(cells)), key=lambda index: -scores[index])]
