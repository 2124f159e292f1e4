"""Searches that run in the calling process, for tests of their internals and for benchmarks."""

from __future__ import annotations

from typing import Any

from nni_darts._nni import DataLoader, Lightning, Trainer
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.training import ImageClassifier


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
