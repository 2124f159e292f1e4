"""Metrics of a classifier over a whole epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score, MulticlassRecall
from torchmetrics.utilities.data import dim_zero_cat

__all__ = ['measure', 'measured_in_training']


def measure(name: str, num_classes: int) -> Metric:
    """Returns a metric that is updated with logits (B, classes) and labels (B,) of each batch, and computed at the end of an epoch.

    Args:
        name: a name in ``nni_darts.recipes.metric.IMAGE_METRICS``.
        num_classes: number of classes.
    """
    return _MEASURES[name](num_classes)


def measured_in_training(name: str) -> bool:
    """Returns whether a metric is also measured on training batches. AUROC is not, because it would keep all their probabilities."""
    return name != 'auroc'


class _BalancedAccuracy(MulticlassRecall):
    """The mean recall of the classes that have images; torchmetrics counts classes without images as 0."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average='none')

    def compute(self) -> Tensor:
        """Returns the metric as a scalar."""
        counts: Any = self.tp + self.fn  # type: ignore[operator]  # tensors, because the metric is not averaged over samples
        return super().compute()[counts > 0].mean()


class _Auroc(MulticlassAUROC):
    """The mean one-vs-rest area under the ROC curve over the classes that have some but not all of the images; exact, without bins."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average='none')

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Converts logits to probabilities, because torchmetrics would guess for each batch which of the two it is."""
        super().update(preds.float().softmax(dim=1), target)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Returns the metric as a scalar, which is 0.5 if only one class has images."""
        target: Tensor = dim_zero_cat(self.target)
        counts = target.bincount(minlength=self.num_classes)
        told = (counts > 0) & (counts < len(target))
        areas = super().compute()
        return areas[told].mean() if bool(told.any()) else areas.new_tensor(0.5)


_MEASURES: Mapping[str, Callable[[int], Metric]] = MappingProxyType(
    {
        'accuracy': lambda num_classes: MulticlassAccuracy(num_classes, average='micro'),
        'balanced_accuracy': _BalancedAccuracy,
        'auroc': _Auroc,
        'f1': lambda num_classes: MulticlassF1Score(num_classes, average='macro'),
    }
)
