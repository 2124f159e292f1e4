"""The two optimizers of a search among those of a Lightning trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from nni_darts._nni import Trainer

__all__ = ['architecture_optimizer', 'gradient_scaler', 'join_alphas', 'weight_optimizers']


def weight_optimizers(trainer: Trainer) -> list[Optimizer]:
    """Returns the evaluator's optimizers; the first one moves the weights."""
    return [optimizer for optimizer in trainer.optimizers if not getattr(optimizer, 'is_arch_optimizer', False)]


def architecture_optimizer(trainer: Trainer) -> Optimizer:
    """Returns the optimizer of α, which NNI marks."""
    return next(optimizer for optimizer in trainer.optimizers if getattr(optimizer, 'is_arch_optimizer', False))


def gradient_scaler(trainer: Trainer) -> GradScaler | None:
    """Returns the gradient scaler of ``precision='16-mixed'``; None in any other precision."""
    scaler = getattr(trainer.precision_plugin, 'scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def join_alphas(configured: Any, alphas: Sequence[nn.Parameter]) -> None:
    """Adds α to the first optimizer in what ``configure_optimizers`` returned, where weights and α move together."""
    optimizers = _optimizers(configured)
    held = {id(parameter) for optimizer in optimizers for group in optimizer.param_groups for parameter in group['params']}
    optimizers[0].param_groups[0]['params'].extend(alpha for alpha in alphas if id(alpha) not in held)


def _optimizers(configured: Any) -> list[Optimizer]:
    """Returns the optimizers in what ``configure_optimizers`` returned, in any form that Lightning accepts."""
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, dict):
        return _optimizers(configured.get('optimizer'))
    if isinstance(configured, (list, tuple)):
        return [optimizer for part in configured for optimizer in _optimizers(part)]
    return []
