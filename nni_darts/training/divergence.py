"""Stops a training as soon as it diverges, so that no cell is derived from NaN or infinite values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ['StopOnDivergence', 'not_finite']


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Returns the name of the first tensor that has NaN or infinite values; '' if there is none.

    Args:
        tensors: name → tensor, such as a ``state_dict``.
    """
    floating = {name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return ''
    # One number represents all tensors, so that there is only one wait for the device.
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in floating.values()]).tolist()
    return next((name for name, good in zip(floating, finite) if not good), '')


class StopOnDivergence(pl.Callback):
    """Raises at the first training loss, or gradient of the weights, that is not finite, before it changes the weights.

    It also raises after an epoch in which weights or running statistics ceased to be finite. A finite gradient can cause this if the
    learning rate is large, and after the last step nothing else would detect it.

    With ``precision: 16-mixed``, a gradient that is not finite does not by itself mean divergence: the scaler skips the step and halves
    the scale. It does mean divergence if the scale has fallen below 1, because then the unscaled gradients overflow.

    Raises:
        ArithmeticError: if the training has diverged; the message has the step, the learning rate and advice.
    """

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        if not torch.isfinite(loss.detach()).all():
            raise self._error(trainer, f'the training loss is {float(loss.detach()):g}')

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        scaler = getattr(trainer.precision_plugin, 'scaler', None)
        if scaler is not None and scaler.get_scale() >= 1:
            return
        gradients = [weight.grad for group in optimizer.param_groups for weight in group['params'] if weight.grad is not None]
        # One norm represents all gradients, so that there is only one wait for the device. A norm that overflows has diverged, too.
        if gradients and not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).max()):
            raise self._error(trainer, 'the gradient of the weights is not finite')

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        name = not_finite({**dict(module.named_parameters()), **dict(module.named_buffers())})
        if name:
            raise self._error(trainer, f'the network holds NaN or infinite numbers ({name})')

    def _error(self, trainer: pl.Trainer, what: str) -> ArithmeticError:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        rate = trainer.optimizers[0].param_groups[0]['lr']
        return ArithmeticError(
            f'{what} in step {progress.current.ready} of epoch {trainer.current_epoch + 1} (step {progress.total.ready} in all) at '
            f'learning rate {rate:.4g}: the training has diverged; lower the learning rate or the gradient clip'
        )
