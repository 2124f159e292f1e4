"""Strategies that train models of a space from scratch, one after the other, and keep the best."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from nni_darts._nni import Lightning, ModelStatus, OneShotStrategy, RawFormatModelSpace, SequentialExecutionEngine, model_context
from nni_darts.strategies.settings import typed

__all__ = ['OneByOne', 'fresh_copy']


@typed
class OneByOne(OneShotStrategy):
    """Runs where one-shot strategies run, in the calling process. Under ``nnictl`` such cells are trials of their own instead.

    A subclass implements ``_run``: it calls :meth:`train` with one sample after the other.

    Args:
        optimize_mode: whether a higher metric is better (``maximize``) or a lower one (``minimize``: perplexity, a loss).

    Attributes:
        trained: every model that was trained, in order.

    Raises:
        ValueError: for another mode.
    """

    def __init__(self, optimize_mode: Literal['maximize', 'minimize'] = 'maximize') -> None:
        super().__init__()
        self.optimize_mode = optimize_mode
        self.trained: list[RawFormatModelSpace] = []

    def _initialize(self, model_space: RawFormatModelSpace, engine: SequentialExecutionEngine) -> RawFormatModelSpace:
        if not isinstance(model_space, RawFormatModelSpace) or not isinstance(model_space.evaluator, Lightning):
            raise TypeError(f'{type(self).__name__} needs a PyTorch model space and a Lightning evaluator')
        return model_space

    def train(self, sample: dict[str, Any]) -> float | None:
        """Trains the model of a sample; its final metric, larger is better, or None if it reported none."""
        space = self.model_space.model_space
        with model_context(sample):
            network = type(space)(*space.trace_args, **space.trace_kwargs)
        model = _FixedModel(network, fresh_copy(self.model_space.evaluator), sample)
        self.trained.append(model)
        self.engine.submit_models(model)
        return self._score(model)

    def _score(self, model: RawFormatModelSpace) -> float | None:
        if model.metric is None:
            return None
        return model.metric if self.optimize_mode == 'maximize' else -model.metric

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[RawFormatModelSpace]:
        """The trained models, best first."""
        done = [model for model in self.trained if model.metric is not None]
        yield from (sorted(done, key=lambda model: -(self._score(model) or 0.0)) if sort else done)[:limit]

    def select(self) -> dict[str, Any]:
        """The best model's sample.

        Raises:
            RuntimeError: if no model was trained or none reported a final metric.
        """
        for model in self.list_models():
            return model.sample
        raise RuntimeError('the search has no result: no model reported a final metric')


class _FixedModel(RawFormatModelSpace):
    """One trained-from-scratch model in the form NNI's engine runs."""

    def __init__(self, network: nn.Module, evaluator: Lightning, sample: dict[str, Any]) -> None:
        super().__init__(network, evaluator)
        self.sample = sample
        self.status = ModelStatus.Frozen

    def executable_model(self) -> nn.Module:
        return self.model_space


def fresh_copy(evaluator: Lightning) -> Lightning:
    """A Lightning evaluator can be used once; the loaders' data need no copy."""
    loaders = [evaluator.train_dataloaders, evaluator.val_dataloaders, evaluator.datamodule]
    return copy.deepcopy(evaluator, {id(loader): loader for loader in loaders if loader is not None})
