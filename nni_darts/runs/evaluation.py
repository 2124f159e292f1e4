"""The evaluation of a classifier on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from nni_darts.report.cautions import no_better_than_chance
from nni_darts.report.spread import accuracy_interval

__all__ = ['Evaluation']


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The probabilities that a classifier gave to labelled images.

    Args:
        classes: class names in the order of the labels.
        labels: true class of each image, int64 (N,).
        probabilities: probability of each class for each image, float32 (N, classes), on the CPU.
        names: path of each image, or its index if it has no path.

    Raises:
        ValueError: for other types or shapes, labels without a class, or no images.

    Example:
        ``evaluation = Evaluation(('cat', 'dog'), torch.tensor([0, 1]), torch.tensor([[0.9, 0.1], [0.6, 0.4]]), ('a.png', 'b.png'))``
    """

    classes: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count:
            raise ValueError('an evaluation needs at least one image')
        if self.labels.dtype != torch.int64 or self.labels.shape != (count,):
            raise ValueError(f'labels must be int64 ({count},), not {self.labels.dtype} {tuple(self.labels.shape)}')
        shape = (count, len(self.classes))
        if self.probabilities.dtype != torch.float32 or self.probabilities.shape != shape:
            raise ValueError(f'probabilities must be float32 {shape}, not {self.probabilities.dtype} {tuple(self.probabilities.shape)}')
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f'labels must be 0 to {len(self.classes) - 1}; they are {low} to {high}')

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def predictions(self) -> Tensor:
        """The most probable class of each image, int64 (N,); in a tie, the first of these classes."""
        return self.probabilities.argmax(1)

    @cached_property
    def confusion(self) -> Tensor:
        """Number of images of each combination, int64 (classes, classes): rows are true classes, columns are predicted classes."""
        size = len(self.classes)
        # Torchmetrics requires at least two classes.
        return multiclass_confusion_matrix(self.predictions, self.labels, max(2, size), validate_args=False)[:size, :size]

    @property
    def accuracy(self) -> float:
        """Fraction of images whose most probable class is the true class."""
        return int(self.confusion.trace()) / len(self)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the accuracy."""
        return accuracy_interval(self.accuracy, len(self))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images."""
        recalls = [entry['recall'] for entry in self.per_class if entry['count']]
        return sum(recalls) / len(recalls)

    @property
    def largest_class(self) -> float:
        """Fraction of images in the largest class, which is the accuracy of always predicting it."""
        return int(self.confusion.sum(1).max()) / len(self)

    @property
    def beats_largest_class(self) -> bool:
        """Whether the accuracy is better than always predicting the largest class, with 95 % confidence."""
        return not no_better_than_chance(self.accuracy, len(self), self.largest_class)

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """``class``, ``count`` (number of images), ``recall``, ``precision`` and ``f1`` of each class.

        Recall is None for a class without images, precision for a class that is never predicted, and F1 if both apply.
        """
        of_class, predicted = self.confusion.sum(1).tolist(), self.confusion.sum(0).tolist()
        precision, recall, f1, _ = precision_recall_fscore_support(
            self.labels.numpy(), self.predictions.numpy(), labels=range(len(self.classes)), zero_division=0
        )
        return [
            {
                'class': name,
                'count': of_class[index],
                'recall': float(recall[index]) if of_class[index] else None,
                'precision': float(precision[index]) if predicted[index] else None,
                'f1': float(f1[index]) if of_class[index] or predicted[index] else None,
            }
            for index, name in enumerate(self.classes)
        ]

    def worst(self, count: int) -> list[int]:
        """Returns the indices of misclassified images, the most confident mistakes first; in a tie, in the order of the images.

        Args:
            count: largest length of the list.
        """
        wrong = (self.predictions != self.labels).nonzero()[:, 0]
        confidence = self.probabilities[wrong, self.predictions[wrong]]
        return wrong[confidence.argsort(descending=True, stable=True)][:count].tolist()

    def to_dict(self, worst: int = 20) -> dict[str, Any]:
        """Returns plain values for JSON: all metrics, the confusion matrix and the worst mistakes, but no other single images.

        Args:
            worst: largest number of mistakes.
        """
        return {
            'count': len(self),
            'classes': list(self.classes),
            'accuracy': self.accuracy,
            'accuracy_interval': list(self.accuracy_interval),
            'balanced_accuracy': self.balanced_accuracy,
            'largest_class': self.largest_class,
            'per_class': self.per_class,
            'confusion': self.confusion.tolist(),
            'mistakes': self._mistakes(self.worst(worst)),
        }

    def _mistakes(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        labels, predictions = self.labels.tolist(), self.predictions.tolist()
        return [
            {
                'name': self.names[index],
                'true': self.classes[labels[index]],
                'predicted': self.classes[predictions[index]],
                'probability': float(self.probabilities[index, predictions[index]]),
                'probability_of_true': float(self.probabilities[index, labels[index]]),
            }
            for index in indices
        ]
