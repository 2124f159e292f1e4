"""Training from scratch on several ranks, each with its part of every batch: the same steps on all of them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from nni_darts import parallel

__all__ = ['SharedSteps']


class SharedSteps(pl.Callback):
    """Averages what ranks compute differently (:mod:`nni_darts.parallel`): gradients in every step, before they are clipped; at the end of
    an epoch the running statistics of batch norms. (A search has steps of its own, and does this by itself.)"""

    def __init__(self) -> None:
        self._share = 1.0

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        parallel.broadcast(module.parameters())

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        (self._share,) = parallel.shares(len(batch[1]))
        parallel.share_random_state()

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        parallel.average_gradients(module.parameters(), self._share)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        parallel.average_buffers(module.model)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        parallel.average_buffers(module.model)  # type: ignore[arg-type]
