"""What a search is judged by: its name, its direction, how it is shown. No torch in here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

__all__ = ['ACCURACY', 'METRICS', 'PERPLEXITY', 'Metric']

T = TypeVar('T')


@dataclass(frozen=True)
class Metric:
    """One number for each trained network.

    Attributes:
        name: ``valid_NAME`` is what cells are chosen by, ``test_NAME`` what is reported at the end.
        optimize_mode: NNI's word for which of two values is better.
        percent: whether it is a part of one that is shown in per cent.
    """

    name: str
    optimize_mode: Literal['maximize', 'minimize']
    percent: bool

    def best(self, entries: Iterable[T], value: Callable[[T], float]) -> T | None:
        """The entry with the best value, the first of equals; None of none."""
        choose = max if self.optimize_mode == 'maximize' else min
        return choose(entries, key=value, default=None)

    def shown(self, value: float) -> str:
        """As people read it, without a unit."""
        return f'{100 * value if self.percent else value:.2f}'

    @property
    def unit(self) -> str:
        """What stands beside the number, or above a column of them."""
        return '%' if self.percent else self.name

    def of(self, result: Mapping[str, Any], part: str) -> float | None:
        """``valid_NAME`` or ``test_NAME`` of a result, if it is there."""
        return result.get(f'{part}_{self.name}')


ACCURACY = Metric('accuracy', 'maximize', percent=True)
PERPLEXITY = Metric('perplexity', 'minimize', percent=False)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in (ACCURACY, PERPLEXITY)})
"""Name → metric."""
