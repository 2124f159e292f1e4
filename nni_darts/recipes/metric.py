"""The metrics that compare cells, with their names, directions and formats. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

__all__ = ['ACCURACY', 'AUROC', 'BALANCED_ACCURACY', 'F1', 'IMAGE_METRICS', 'METRICS', 'PERPLEXITY', 'Metric']

T = TypeVar('T')


@dataclass(frozen=True)
class Metric:
    """A measure of the quality of a trained network.

    Attributes:
        name: name of the metric; cells are chosen by ``valid_NAME``, and ``test_NAME`` is reported at the end.
        optimize_mode: whether larger (``maximize``) or smaller (``minimize``) values are better.
        percent: whether values lie between 0 and 1 and are shown in per cent.
        title: the name in tables and on pages.

    Example:
        ``METRICS['f1'].shown(0.873)`` is ``87.30``.
    """

    name: str
    optimize_mode: Literal['maximize', 'minimize']
    percent: bool
    title: str

    def best(self, entries: Iterable[T], value: Callable[[T], float]) -> T | None:
        """Returns the entry with the best value, the first one in a tie; None if there are no entries."""
        choose = max if self.optimize_mode == 'maximize' else min
        return choose(entries, key=value, default=None)

    def improves(self, value: float, best: float) -> bool:
        """Returns whether a value is better than the best one so far; any value is better than NaN."""
        return best != best or (value > best if self.optimize_mode == 'maximize' else value < best)

    def shown(self, value: float) -> str:
        """Returns a value as text for readers, without a unit."""
        return f'{100 * value if self.percent else value:.2f}'

    def within(self, value: float) -> float:
        """Returns the nearest value that the metric can take, because an interval by Student's t may exceed an accuracy of 1."""
        return min(1.0, max(0.0, value)) if self.percent else max(0.0, value)

    @property
    def unit(self) -> str:
        """The unit to print after a value or above a column; a per cent sign alone means accuracy."""
        if self.name == 'accuracy':
            return '%'
        return f'% {self.title}' if self.percent else self.title

    @property
    def label(self) -> str:
        """The label of an axis, with the unit."""
        return f'{self.title}, %' if self.percent else self.title

    def of(self, result: Mapping[str, Any], part: str) -> float | None:
        """Returns ``valid_NAME`` or ``test_NAME`` of a result (``part``: ``valid`` or ``test``); None if the result lacks it."""
        return result.get(f'{part}_{self.name}')


ACCURACY = Metric('accuracy', 'maximize', True, 'accuracy')
BALANCED_ACCURACY = Metric('balanced_accuracy', 'maximize', True, 'balanced accuracy')
AUROC = Metric('auroc', 'maximize', True, 'AUROC')
F1 = Metric('f1', 'maximize', True, 'F1')
PERPLEXITY = Metric('perplexity', 'minimize', False, 'perplexity')

IMAGE_METRICS = (ACCURACY, BALANCED_ACCURACY, AUROC, F1)
"""Metrics by which cells of image classifiers can be chosen."""

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in (*IMAGE_METRICS, PERPLEXITY)})
"""Name → metric."""
