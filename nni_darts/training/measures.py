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
    """A metric to update with logits (B, classes) and labels (B,), batch by batch, and to compute at the end of an epoch.

    Args:
        name: one of ``nni_darts.recipes.metric.IMAGE_METRICS``.
        num_classes: number of classes.
    """
    return _MEASURES[name](num_classes)


def measured_in_training(name: str) -> bool:
    """Whether a metric is worth measuring on training batches, too: AUROC would keep the probabilities of all of them."""
    return name != 'auroc'


class _BalancedAccuracy(MulticlassRecall):
    """The mean recall of the classes that have images; torchmetrics counts classes without images as 0."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average='none')

    def compute(self) -> Tensor:
        """A scalar."""
        counts: Any = self.tp + self.fn  # type: ignore[operator]  # tensors, as the metric is not averaged over samples
        return super().compute()[counts > 0].mean()


class _Auroc(MulticlassAUROC):
    """The mean area of the classes that have images, and are not all there is, each against all others; exact, without bins."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average='none')

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Logits, not probabilities: of those torchmetrics would guess from each batch which of both they are."""
        super().update(preds.float().softmax(dim=1), target)

    def compute(self) -> Tensor:  # type: ignore[override]
        """A scalar; 0.5 where a single class has images, so that nothing can be told apart."""
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
