"""Training of image classifiers: NNI's evaluator in a search, and the retraining of what it finds."""

from __future__ import annotations

from typing import Any, Literal

import nni
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from nni_darts._nni import LightningModule

__all__ = ['ImageClassifier']


class ImageClassifier(LightningModule):
    """Cross-entropy, SGD with momentum, a learning rate that falls each epoch.

    A model may return logits (B, classes), or while training a pair with the logits of an auxiliary head. One that has
    ``set_drop_path`` is told the current probability at the start of each epoch; it grows linearly to ``drop_path``.

    Logs ``train_loss``, ``train_accuracy``, ``valid_loss``, ``valid_accuracy``, ``test_loss``, ``test_accuracy`` (accuracies in 0 … 1).

    Args:
        num_classes: number of classes.
        epochs: length of the schedules.
        learning_rate, momentum, weight_decay: of SGD.
        schedule: ``cosine`` down to ``min_learning_rate``, or ``step``: times ``decay`` each epoch.
        auxiliary_weight: of the auxiliary head's loss.
        label_smoothing: of the training loss.
        drop_path: its value at the end.
        report: send each epoch's validation accuracy and the last one to NNI, as evaluators of NNI's multi-trial strategies must.
    """

    def __init__(
        self,
        num_classes: int,
        epochs: int,
        *,
        learning_rate: float = 0.025,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
        schedule: Literal['cosine', 'step'] = 'cosine',
        min_learning_rate: float = 0.0,
        decay: float = 0.97,
        auxiliary_weight: float = 0.0,
        label_smoothing: float = 0.0,
        drop_path: float = 0.0,
        report: bool = False,
    ) -> None:
        super().__init__()
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.min_learning_rate = min_learning_rate
        self.decay = decay
        self.auxiliary_weight = auxiliary_weight
        self.label_smoothing = label_smoothing
        self.drop_path = drop_path
        self.report = report
        for part in ('train', 'valid', 'test'):
            setattr(self, f'{part}_accuracy', MulticlassAccuracy(num_classes, average='micro'))
            setattr(self, f'{part}_loss', MeanMetric())
        for metric in (self.train_accuracy, self.train_loss):
            metric.persistent(True)  # a checkpoint in the middle of an epoch holds what it has measured so far

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, C, H, W) → what the model returns."""
        return self.model(images)

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD, and a schedule stepped each epoch."""
        optimizer = SGD(self.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        if self.schedule == 'cosine':
            scheduler = CosineAnnealingLR(optimizer, self.epochs, eta_min=self.min_learning_rate)
        else:
            scheduler = StepLR(optimizer, 1, self.decay)
        return {'optimizer': optimizer, 'lr_scheduler': scheduler}

    def on_train_start(self) -> None:
        self._follow_epoch()  # a run that goes on in the middle of an epoch does not start it

    def on_train_epoch_start(self) -> None:
        self._follow_epoch()

    def _follow_epoch(self) -> None:
        if hasattr(self.model, 'set_drop_path'):
            self.model.set_drop_path(self.drop_path * self.trainer.current_epoch / self.epochs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The loss, differentiable, and the logits for the metrics."""
        images, labels = batch
        logits = self(images)
        auxiliary = None
        if isinstance(logits, tuple):
            logits, auxiliary = logits
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * functional.cross_entropy(auxiliary, labels, label_smoothing=self.label_smoothing)
        return {'loss': loss, 'logits': logits.detach()}

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        # Here and not in training_step: the passes of an architect must not count.
        self._measure('train', outputs['loss'].detach(), outputs['logits'], batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on validation data."""
        self._evaluate('valid', batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on test data."""
        self._evaluate('test', batch)

    def _evaluate(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = self(images)
        self._measure(part, functional.cross_entropy(logits, labels), logits, labels)

    def _measure(self, part: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        getattr(self, f'{part}_accuracy').update(logits, labels)
        getattr(self, f'{part}_loss').update(loss, weight=len(labels))

    def _log(self, part: str) -> None:
        for name in ('loss', 'accuracy'):
            metric = getattr(self, f'{part}_{name}')
            self.log(f'{part}_{name}', metric.compute(), prog_bar=True)
            metric.reset()

    def on_train_epoch_end(self) -> None:
        self._log('train')

    def on_validation_epoch_end(self) -> None:
        self._log('valid')
        if self.report and nni.get_current_parameter() is not None:
            nni.report_intermediate_result(self._accuracy())

    def on_test_epoch_end(self) -> None:
        self._log('test')

    def on_fit_end(self) -> None:
        if self.report and nni.get_current_parameter() is not None:
            nni.report_final_result(self._accuracy())

    def _accuracy(self) -> float:
        return float(self.trainer.callback_metrics['valid_accuracy'])
