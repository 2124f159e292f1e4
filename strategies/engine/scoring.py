"""Context managers that score a supernet without side effects, silence its logs, or freeze its parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torchmetrics import Metric

from nni_darts._nni import LightningModule
from nni_darts.strategies.architects.randomness import RandomState

__all__ = ['Rewind', 'frozen', 'scoring_mode', 'silent']


class Rewind:
    """Restores a supernet's buffers and the random state, so that all evaluations start from the same state."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._copies = [buffer.clone() for buffer in self._buffers]
        self._devices = {parameter.device for parameter in model.parameters()}
        self.keep_random_state()

    def keep_random_state(self) -> None:
        """Saves the current random state as the state to restore, so that the next batch draws other numbers."""
        self._state = RandomState(self._devices)

    def __call__(self) -> None:
        if self._buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._buffers, self._copies)
        self._state.restore()


@contextmanager
def scoring_mode(module: nn.Module, model: nn.Module, evaluator: LightningModule, *, train: bool) -> Iterator[Rewind]:
    """Evaluates a supernet without autograd within the block; afterwards modes, buffers and random state are as before.

    Args:
        module: module of the search, whose modes and buffers are restored.
        model: the supernet.
        evaluator: module of the evaluator, which logs nothing within the block.
        train: whether batch norms use the statistics of each batch.

    Yields:
        A function to call before each evaluation.
    """
    modes = [(child, child.training) for child in module.modules()]
    before = RandomState({parameter.device for parameter in module.parameters()})
    rewind = Rewind(model)
    try:
        with torch.no_grad(), silent(evaluator):
            model.train(train)
            yield rewind
    finally:
        rewind()
        before.restore()
        for child, training in modes:
            child.training = training


@contextmanager
def frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Disables gradients of parameters within the block; the weight step needs no gradient of α."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def silent(module: LightningModule) -> Iterator[None]:
    """Keeps the passes of the architect out of the evaluator's logs and metrics, which are about the weight step."""
    metrics = [child for child in module.modules() if isinstance(child, Metric)]
    states = [copy.deepcopy(metric.metric_state) for metric in metrics]
    counts = [metric._update_count for metric in metrics]
    log, log_dict = module.log, module.log_dict
    module.log = module.log_dict = lambda *args, **kwargs: None
    try:
        yield
    finally:
        module.log, module.log_dict = log, log_dict
        for metric, state, count in zip(metrics, states, counts):
            for name, value in state.items():
                setattr(metric, name, value)
            metric._update_count = count
            metric._computed = None
