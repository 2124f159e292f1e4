"""Searches that run in the calling process, for tests of their internals and for benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nni_darts._nni import DataLoader, Lightning, LightningModule, Trainer
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.training import ImageClassifier

RATE, MOMENTUM, DECAY = 0.1, 0.9, 3e-2


class Evaluator(LightningModule):
    """SGD over the model alone, at :data:`RATE` with :data:`MOMENTUM` and :data:`DECAY`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), RATE, MOMENTUM, weight_decay=DECAY)


def trainer(epochs: int = 1, **settings: Any) -> Any:
    """Returns a trainer that prints nothing and writes no files."""
    return Trainer(
        max_epochs=epochs,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def fit(
    strategy: DifferentiableStrategy,
    space: Any,
    loaders: tuple[DataLoader, DataLoader],
    *,
    epochs: int = 1,
    classes: int,
    learning_rate: float = 0.05,
    precision: str = '64-true',
) -> Any:
    """Searches the space with a training and a validation loader. Returns the strategy's Lightning module."""
    module = ImageClassifier(classes, epochs, learning_rate=learning_rate)
    model = strategy.mutate_model(space)
    evaluator = strategy.mutate_evaluator(Lightning(module, trainer(epochs, precision=precision, num_sanity_val_steps=0), *loaders))
    evaluator.evaluate(model)
    return evaluator.module
