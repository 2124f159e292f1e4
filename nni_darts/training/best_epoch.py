"""The epoch of a training that validated best: its weights are kept, and a training that gets no better ends."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from nni_darts import parallel
from nni_darts.recipes.metric import Metric

__all__ = ['BestEpoch']

_OLDER = 'language_model'
"""Where checkpoints of earlier versions have the best weights of a language model."""


class BestEpoch(pl.Callback):
    """Follows a validation metric from epoch to epoch. Of equal epochs the first is the best.

    Args:
        metric: what the module logs as ``valid_NAME``.
        keep: load the weights of the best epoch when the training ends, as they were validated.
        patience: number of epochs in a row without improvement after which the training ends; None never ends it.
        before: how many epochs other runs have trained the same network before; they count in :attr:`epoch`.

    Attributes:
        epoch: the best one, from 1; None as long as nothing was validated.
        value: its metric.
        ended: after which epoch of this run patience ended it; None if it did not.

    Example:
        >>> BestEpoch(ACCURACY, patience=5).epoch is None
        True
    """

    def __init__(self, metric: Metric, *, keep: bool = True, patience: int | None = None, before: int = 0) -> None:
        self.metric = metric
        self.keep = keep
        self.patience = patience
        self.before = before
        self.epoch: int | None = None
        self.value = math.nan
        self.ended: int | None = None
        self._weights: dict[str, Tensor] | None = None

    def start_from(self, epoch: int, value: float, weights: dict[str, Tensor]) -> None:
        """Takes the best epoch of an earlier training, which this one continues."""
        self.epoch, self.value, self._weights = epoch, value, weights

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.ended is not None:  # and was interrupted between its last epoch and its result
            trainer.fit_loop.max_epochs = self.ended

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Here a language model still has its averaged weights in place, those that were validated.
        value = parallel.agreed(float(trainer.callback_metrics[f'valid_{self.metric.name}']))
        epoch = self.before + trainer.current_epoch + 1
        if self.epoch is None or self.metric.improves(value, self.value):
            self.epoch, self.value = epoch, value
            if self.keep:
                self._weights = {name: tensor.detach().clone() for name, tensor in module.model.state_dict().items()}  # type: ignore[union-attr]
        elif self.patience is not None and epoch - max(self.epoch, self.before) >= self.patience:
            self.ended = trainer.current_epoch + 1
            trainer.fit_loop.max_epochs = self.ended

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.keep and self._weights is not None:
            module.model.load_state_dict(self._weights)  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        return {'epoch': self.epoch, 'value': self.value, 'ended': self.ended, 'keep': self.keep, 'weights': self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.value, self.ended = state_dict['epoch'], state_dict['value'], state_dict['ended']
        self.keep, self._weights = state_dict['keep'], state_dict['weights']

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.state_key in checkpoint['callbacks']:
            return
        # A run of an earlier version ends as it would have ended there: with the last weights, or of a language model the best.
        kept = checkpoint.get(_OLDER, {})
        self.keep = kept.get('best') is not None
        if self.keep:
            losses = kept['history']
            best = min(range(len(losses)), key=losses.__getitem__)
            # Of the metric, which is exp(loss) for text.
            self.start_from(best + 1, math.exp(min(losses[best], 88.0)), kept['best'])
