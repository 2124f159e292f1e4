"""Keeps the weights of the epoch with the best validation metric, and ends a training that no longer improves."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from nni_darts import parallel
from nni_darts.recipes.metric import Metric

__all__ = ['BestEpoch']

_OLDER = 'language_model'
"""The key under which checkpoints of earlier versions have the best weights of a language model."""


class BestEpoch(pl.Callback):
    """Tracks a validation metric over the epochs. In a tie, the first epoch is the best.

    Args:
        metric: the metric; the module logs it as ``valid_NAME``.
        keep: whether to load the validated weights of the best epoch when the training ends.
        patience: number of consecutive epochs without improvement after which the training ends; None for no limit.
        before: number of epochs for which earlier runs have trained the same network; :attr:`epoch` includes them.

    Attributes:
        epoch: the best epoch, from 1; None before the first validation.
        value: the metric of the best epoch.
        ended: the epoch of this run after which the training ended for lack of improvement; None if it did not.

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
        """Sets the best epoch of an earlier training that this one continues."""
        self.epoch, self.value, self._weights = epoch, value, weights

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.ended is not None:  # the run was interrupted between its last epoch and its result
            trainer.fit_loop.max_epochs = self.ended

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # At this point, a language model still has its averaged weights in place, which were validated.
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
        # A run of an earlier version keeps that version's rule: the last weights, or the best weights of a language model.
        kept = checkpoint.get(_OLDER, {})
        self.keep = kept.get('best') is not None
        if self.keep:
            losses = kept['history']
            best = min(range(len(losses)), key=losses.__getitem__)
            # Best value of the metric, which is exp(loss) for text.
            self.start_from(best + 1, math.exp(min(losses[best], 88.0)), kept['best'])
