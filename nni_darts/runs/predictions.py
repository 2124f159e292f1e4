"""The predictions of a network for unlabelled images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

__all__ = ['Prediction', 'Predictions']


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        name: path of the image, or its index if it has no path.
        probabilities: class name → probability, the most probable class first.

    Example:
        ``model.predict('cat.jpg')[0].label``
    """

    name: str
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Probability of the most probable class."""
        return next(iter(self.probabilities.values()))

    def top(self, count: int) -> dict[str, float]:
        """Returns the ``count`` most probable classes, in the form of ``probabilities``."""
        return dict(list(self.probabilities.items())[:count])


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for a sequence of images, in order; each item is a :class:`Prediction`.

    Attributes:
        classes: class names in the order of the columns.
        probabilities: float32 (N, classes); each row adds up to 1.
        names: path of each image, or its index if it has no path.

    Example:
        ``[answer.label for answer in model.predict('photos')]``
    """

    classes: tuple[str, ...]
    probabilities: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Prediction]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Prediction:
        if not -len(self) <= index < len(self):
            raise IndexError(f'there are {len(self)} predictions, no number {index}')
        values = self.probabilities[index]
        order = values.argsort(descending=True, stable=True).tolist()
        return Prediction(self.names[index], {self.classes[position]: float(values[position]) for position in order})

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Name of the most probable class of each image; in a tie, the first of these classes."""
        return tuple(self.classes[index] for index in self.probabilities.argmax(1).tolist())

    def to_dicts(self, top: int | None = None) -> list[dict[str, Any]]:
        """Returns plain values for JSON: ``name``, ``label``, ``probability`` and ``probabilities`` of each image.

        Args:
            top: number of classes in ``probabilities``, the most probable first; None for all.
        """
        count = len(self.classes) if top is None else top
        return [{'name': one.name, 'label': one.label, 'probability': one.probability, 'probabilities': one.top(count)} for one in self]
