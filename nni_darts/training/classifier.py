"""Training of image classifiers: NNI's evaluator in a search, and the retraining of the networks found."""

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
    """Trains a classifier with cross-entropy and SGD with momentum; the learning rate decays in each epoch.

    A model may return logits (B, classes) or, in training, a pair of these and the logits of an auxiliary head. If the model has
    ``set_drop_path``, this is called with the current probability at the start of each epoch; it grows linearly from
    ``first_drop_path`` to ``drop_path``.

    Logs ``train_loss``, ``train_accuracy``, ``valid_loss``, ``valid_accuracy``, ``test_loss``, ``test_accuracy`` (accuracies from 0 to
    1), and the same measurements of another ``metric`` (except ``auroc`` on training batches). After a test, :meth:`answers` returns the
    predicted probabilities of each image.

    With ``class_weights`` the training loss is the mean of w_y·l over the images of a batch, with l the cross-entropy of an image and w_y
    the weight of its class. It is divided by the number of images, not by the sum of their weights, so that the gradient of a batch is
    an unbiased estimate and several processes can share a batch. In a search, α and the weights both minimise it; losses and metrics of
    validation and test are not weighted.

    Args:
        num_classes: number of classes.
        epochs: length of the schedules.
        learning_rate, momentum, weight_decay: parameters of SGD.
        schedule: ``cosine`` decays to ``min_learning_rate``; ``step`` multiplies by ``decay`` in each epoch.
        auxiliary_weight: weight of the auxiliary head's loss.
        label_smoothing: label smoothing of the training loss.
        drop_path: drop-path probability at the end.
        first_drop_path: drop-path probability in the first epoch.
        metric: a metric to measure besides accuracy, over whole epochs: a name in ``nni_darts.recipes.metric.IMAGE_METRICS``.
        class_weights: weight of each class in the training loss; None for equal weights.
        report: whether to send the validation metric of each epoch, and the last one as the result, to NNI, as NNI's multi-trial
            strategies require.

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
            getattr(self, f'train_{name}').persistent(True)  # a checkpoint in the middle of an epoch includes its measurements so far

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the model's output for images (B, C, H, W)."""
        return self.model(images)

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns SGD and a schedule that steps once per epoch."""
        optimizer = SGD(self.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        scheduler: LRScheduler
        if self.schedule == 'cosine':
            scheduler = CosineAnnealingLR(optimizer, self.epochs, eta_min=self.min_learning_rate)
        else:
            scheduler = StepLR(optimizer, 1, self.decay)
        return {'optimizer': optimizer, 'lr_scheduler': scheduler}

    def on_train_start(self) -> None:
        self._follow_epoch()  # a run that resumes in the middle of an epoch does not call on_train_epoch_start

    def on_train_epoch_start(self) -> None:
        self._follow_epoch()

    def _follow_epoch(self) -> None:
        if hasattr(self.model, 'set_drop_path'):
            grown = (self.drop_path - self.first_drop_path) * self.trainer.current_epoch / self.epochs
            self.model.set_drop_path(self.first_drop_path + grown)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss, which is differentiable, and the logits for the metrics."""
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
        # Not in training_step, because an architect's passes must not count.
        self._measure('train', outputs['loss'].detach(), outputs['logits'], batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measures loss and metrics on validation data."""
        self._evaluate('valid', batch)

    def on_test_start(self) -> None:
        self._answers = []

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measures loss and metrics on test data, and keeps the probabilities."""
        logits = self._evaluate('test', batch)
        self._answers.append((logits.float().softmax(1).cpu(), batch[1].cpu()))

    def answers(self) -> tuple[Tensor, Tensor]:
        """Returns the probabilities, float32 (N, classes), and the labels, int64 (N,), of the last test, in the order of the test images.

        All ranks must call it.

        Raises:
            ValueError: if there has been no test.
        """
        if not self._answers:
            raise ValueError('there has been no test, so there are no answers')
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
