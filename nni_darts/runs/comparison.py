"""Compares two classifiers on the same test images, to show whether a search was worth its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from nni_darts.report.spread import CONFIDENCE
from nni_darts.runs.evaluation import Evaluation

__all__ = ['Comparison']


@dataclass(frozen=True, eq=False)
class Comparison:
    """A found network and a known network, on the same images in the same order.

    The test is McNemar's in its exact form. Among the images that exactly one of the networks classifies correctly, the fraction of each
    network is compared with one half by the binomial distribution (McNemar, Psychometrika 12, 1947).

    Args:
        found: answers of the found network.
        known: answers of the known network.

    Raises:
        ValueError: if the answers are about different images.

    Example:
        ``Comparison(found, known).sentence('mobilenet_v3_small')``
    """

    found: Evaluation
    known: Evaluation

    def __post_init__(self) -> None:
        if self.found.classes != self.known.classes or not self.found.labels.equal(self.known.labels):
            raise ValueError('the two networks answered about different images, so their answers cannot be compared')

    @property
    def only_found(self) -> int:
        """Number of images that only the found network classifies correctly."""
        return int((self._right(self.found) & ~self._right(self.known)).sum())

    @property
    def only_known(self) -> int:
        """Number of images that only the known network classifies correctly."""
        return int((self._right(self.known) & ~self._right(self.found)).sum())

    @property
    def p_value(self) -> float:
        """Probability of a difference at least this large between two equally good networks."""
        differing = self.only_found + self.only_known
        return float(binomtest(self.only_found, differing).pvalue) if differing else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            'found': self.found.accuracy,
            'known': self.known.accuracy,
            'only_found': self.only_found,
            'only_known': self.only_known,
            'p_value': self.p_value,
        }

    def sentence(self, name: str) -> str:
        """Returns the verdict in one or two sentences.

        Args:
            name: name of the known network.
        """
        images, points = len(self.found), 100 * abs(self.found.accuracy - self.known.accuracy)
        if not self.found.beats_largest_class and not self.known.beats_largest_class:
            return (
                f'On these {images} test images neither the found network nor {name} is clearly better than always predicting the largest '
                'class, so they say nothing about the search: both need more time or more images.'
            )
        if self.p_value >= 1 - CONFIDENCE:
            return (
                f'On these {images} test images the found network and {name} do not differ significantly '
                f'({points:.1f} points between them, p = {self.p_value:.2g}): there is no evidence that the search was worth its time.'
            )
        better = self.found.accuracy > self.known.accuracy
        first, second = ('the found network', name) if better else (name, 'the found network')
        if not better:
            advice = f'Use {name} here, or give the search more time.'
        elif self.known.beats_largest_class:
            advice = 'The search was worth it.'
        else:
            advice = (
                f'But {name} is not clearly better than always predicting the largest class, so it needs more time before this says '
                'whether the search was worth it.'
            )
        return f'On these {images} test images {first} is better than {second} by {points:.1f} points (p = {self.p_value:.2g}). {advice}'

    @staticmethod
    def _right(evaluation: Evaluation) -> Any:
        return evaluation.predictions == evaluation.labels
