"""Training of image classifiers: NNI's evaluator in a search, and the retraining of what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import nni
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR
from torchmetrics import MeanMetric

from nni_darts import parallel
from nni_darts._nni import LightningModule
from nni_darts.training.measures import measure, measured_in_training

__all__ = ['ImageClassifier']


class ImageClassifier(LightningModule):
    """Cross-entropy, SGD with momentum, a learning rate that falls each epoch.

    A model may return logits (B, classes), or while training a pair with the logits of an auxiliary head. One that has
    ``set_drop_path`` is told the current probability at the start of each epoch; it grows linearly from
    ``first_drop_path`` to ``drop_path``.

    Logs ``train_loss``, ``train_accuracy``, ``valid_loss``, ``valid_accuracy``, ``test_loss``, ``test_accuracy`` (accuracies in 0 … 1), and
    the same with the name of another ``metric`` (``auroc`` not of training batches). After a test, :meth:`answers` returns the
    probabilities that it gave to each image.

    With ``class_weights`` the training loss is the mean of w_y·l over the images of a batch, with l the cross-entropy of an image and w_y
    the weight of its class. It is divided by the number of images, not by the sum of their weights: so the gradient of a batch is an
    unbiased estimate, and several processes can share a batch. In a search both α and the weights minimise it; losses and metrics of
    validation and test are not weighted.

    Args:
        num_classes: number of classes.
        epochs: length of the schedules.
        learning_rate, momentum, weight_decay: of SGD.
        schedule: ``cosine`` down to ``min_learning_rate``, or ``step``: times ``decay`` each epoch.
        auxiliary_weight: of the auxiliary head's loss.
        label_smoothing: of the training loss.
        drop_path: its value at the end.
        first_drop_path: its value in the first epoch.
        metric: what is measured beside accuracy: one of ``nni_darts.recipes.metric.IMAGE_METRICS``, over a whole epoch.
        class_weights: a weight for each class, for the training loss; None weighs all alike.
        report: send each epoch's validation metric and the last one to NNI, as evaluators of NNI's multi-trial strategies must.

    Example:
        ``Lightning(ImageClassifier(10, epochs=50, metric='f1'), Trainer(max_epochs=50), datamodule=data)``
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
        first_drop_path: float = 0.0,
        metric: str = 'accuracy',
        class_weights: Sequence[float] | None = None,
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
        self.first_drop_path = first_drop_path
        self.report = report
        self._answers: list[tuple[Tensor, Tensor]] = []  # probabilities and labels of each test batch
        self.metric = metric
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer('class_weights', weights, persistent=False)
        names = dict.fromkeys(('accuracy', metric))
        self._measured = {part: tuple(names) for part in ('valid', 'test')}
        self._measured['train'] = tuple(name for name in names if measured_in_training(name))
        for part, measured in self._measured.items():
            setattr(self, f'{part}_loss', MeanMetric())
            for name in measured:
                setattr(self, f'{part}_{name}', measure(name, num_classes))
        for name in ('loss', *self._measured['train']):
            getattr(self, f'train_{name}').persistent(True)  # a checkpoint in the middle of an epoch holds what it has measured so far

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, C, H, W) → what the model returns."""
        return self.model(images)

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD, and a schedule stepped each epoch."""
        optimizer = SGD(self.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        scheduler: LRScheduler
        if self.schedule == 'cosine':
            scheduler = CosineAnnealingLR(optimizer, self.epochs, eta_min=self.min_learning_rate)
        else:
            scheduler = StepLR(optimizer, 1, self.decay)
        return {'optimizer': optimizer, 'lr_scheduler': scheduler}

    def on_train_start(self) -> None:
        self._follow_epoch()  # a run that resumes in the middle of an epoch does not start it

    def on_train_epoch_start(self) -> None:
        self._follow_epoch()

    def _follow_epoch(self) -> None:
        if hasattr(self.model, 'set_drop_path'):
            grown = (self.drop_path - self.first_drop_path) * self.trainer.current_epoch / self.epochs
            self.model.set_drop_path(self.first_drop_path + grown)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The loss, differentiable, and the logits for the metrics."""
        images, labels = batch
        logits = self(images)
        auxiliary = None
        if isinstance(logits, tuple):
            logits, auxiliary = logits
        loss = self._training_loss(logits, labels)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * self._training_loss(auxiliary, labels)
        return {'loss': loss, 'logits': logits.detach()}

    def _training_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        losses = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction='none')
        return (self.class_weights.to(losses.dtype)[labels] * losses).mean()

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        # Here and not in training_step: the passes of an architect must not count.
        self._measure('train', outputs['loss'].detach(), outputs['logits'], batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and metrics on validation data."""
        self._evaluate('valid', batch)

    def on_test_start(self) -> None:
        self._answers = []

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and metrics on test data; keeps the probabilities."""
        logits = self._evaluate('test', batch)
        self._answers.append((logits.float().softmax(1).cpu(), batch[1].cpu()))

    def answers(self) -> tuple[Tensor, Tensor]:
        """Returns the probabilities, float32 (N, classes), and the labels, int64 (N,), of the last test, in the order of the test images.

        Every rank must call it.

        Raises:
            ValueError: if there was no test.
        """
        if not self._answers:
            raise ValueError('there was no test, whose answers could be asked for')
        probabilities, labels = [], []
        for parts in zip(*parallel.gathered(self._answers)):
            probabilities.append(parallel.whole([part for part, _ in parts]))
            labels.append(parallel.whole([part for _, part in parts]))
        return torch.cat(probabilities), torch.cat(labels)

    def _evaluate(self, part: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self(images)
        self._measure(part, functional.cross_entropy(logits, labels), logits, labels)
        return logits

    def _measure(self, part: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        for name in self._measured[part]:
            getattr(self, f'{part}_{name}').update(logits, labels)
        getattr(self, f'{part}_loss').update(loss, weight=len(labels))

    def _log(self, part: str) -> None:
        for name in ('loss', *self._measured[part]):
            metric = getattr(self, f'{part}_{name}')
            self.log(f'{part}_{name}', metric.compute(), prog_bar=True)
            metric.reset()

    def on_train_epoch_end(self) -> None:
        self._log('train')

    def on_validation_epoch_end(self) -> None:
        self._log('valid')
        if self.report and nni.get_current_parameter() is not None:
            nni.report_intermediate_result(self._validated())

    def on_test_epoch_end(self) -> None:
        self._log('test')

    def on_fit_end(self) -> None:
        if self.report and nni.get_current_parameter() is not None:
            nni.report_final_result(self._validated())

    def _validated(self) -> float:
        return float(self.trainer.callback_metrics[f'valid_{self.metric}'])
