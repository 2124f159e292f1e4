"""The metrics by which cells are compared: name, direction and formatting. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

__all__ = ['ACCURACY', 'AUROC', 'BALANCED_ACCURACY', 'F1', 'IMAGE_METRICS', 'METRICS', 'PERPLEXITY', 'Metric']

T = TypeVar('T')


@dataclass(frozen=True)
class Metric:
    """One number for each trained network.

    Attributes:
        name: ``valid_NAME`` is what cells are chosen by, ``test_NAME`` what is reported at the end.
        optimize_mode: NNI's word for which of two values is better.
        percent: whether it is a part of one that is shown in per cent.
        title: the name as people write it.

    Example:
        ``METRICS['f1'].shown(0.873)`` is ``87.30``.
    """

    name: str
    optimize_mode: Literal['maximize', 'minimize']
    percent: bool
    title: str

    def best(self, entries: Iterable[T], value: Callable[[T], float]) -> T | None:
        """The entry with the best value, the first of equals; None of none."""
        choose = max if self.optimize_mode == 'maximize' else min
        return choose(entries, key=value, default=None)

    def improves(self, value: float, best: float) -> bool:
        """Whether a value is better than the best one so far; anything is better than what is no number."""
        return best != best or (value > best if self.optimize_mode == 'maximize' else value < best)

    def shown(self, value: float) -> str:
        """As people read it, without a unit."""
        return f'{100 * value if self.percent else value:.2f}'

    def within(self, value: float) -> float:
        """The nearest value that the metric can take: an interval by Student's t does not know that no accuracy is above 1."""
        return min(1.0, max(0.0, value)) if self.percent else max(0.0, value)

    @property
    def unit(self) -> str:
        """The unit to print after a value or above a column of values; a per cent sign alone means accuracy."""
        if self.name == 'accuracy':
            return '%'
        return f'% {self.title}' if self.percent else self.title

    @property
    def label(self) -> str:
        """Title and scale of an axis."""
        return f'{self.title}, %' if self.percent else self.title

    def of(self, result: Mapping[str, Any], part: str) -> float | None:
        """``valid_NAME`` or ``test_NAME`` of a result, if it is there."""
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
