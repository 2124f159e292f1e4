"""A training that has diverged is stopped where it happens: nothing is derived from what is not a number."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ['StopOnDivergence']


class StopOnDivergence(pl.Callback):
    """Raises at the first training loss, or gradient of the weights, that is not finite: before the weights are changed by it.

    Raises:
        ArithmeticError: with the step, the learning rate and what to do.
    """

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        if not torch.isfinite(loss.detach()).all():
            raise self._error(trainer, f'the training loss is {float(loss.detach()):g}')

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        gradients = [weight.grad for group in optimizer.param_groups for weight in group['params'] if weight.grad is not None]
        # One number says it for all of them: the device is waited for once. A norm that overflows has diverged as well.
        if gradients and not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).max()):
            raise self._error(trainer, 'the gradient of the weights is not finite')

    def _error(self, trainer: pl.Trainer, what: str) -> ArithmeticError:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        rate = trainer.optimizers[0].param_groups[0]['lr']
        return ArithmeticError(
            f'{what} in step {progress.current.ready} of epoch {trainer.current_epoch + 1} (step {progress.total.ready} in all) at '
            f'learning rate {rate:.4g}: the training has diverged; lower the learning rate or the gradient clip'
        )
