"""A search or training that runs out of time ends with an epoch, and has a result."""

from __future__ import annotations

import time
from typing import Any, Protocol

import pytorch_lightning as pl

from nni_darts import parallel

__all__ = ['EndInTime']


class _Deadline(Protocol):
    def allows(self, seconds: float) -> bool:
        """Returns whether ``seconds`` more seconds fit."""


class EndInTime(pl.Callback):
    """Ends a run after the epoch that is the last one to leave time for another and for what must follow.

    A search (a module with ``end_early``) ends with what its selection decides then; while a selection fine-tunes, with what it has
    decided so far. The schedule of the learning rate is left alone.

    Args:
        deadline: the end of the time. Where several ranks share a run, the first one's counts.
        tail: seconds that the selection after a search takes.

    Attributes:
        ended: after which epoch it ended the run; None if it did not.

    Example:
        ``EndInTime(Deadline(3600))``
    """

    def __init__(self, deadline: _Deadline, tail: float = 0.0) -> None:
        self.deadline = deadline
        self.tail = tail
        self.ended: int | None = None
        self._begun = 0.0
        self._longest = 0.0

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.ended is not None and not hasattr(module, 'end_early'):  # and was interrupted between its last epoch and its result
            trainer.fit_loop.max_epochs = self.ended

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._begun = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._begun = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        finished = trainer.current_epoch + 1
        self._longest = max(self._longest, time.monotonic() - self._begun)
        if finished >= (trainer.max_epochs or 0):
            return
        needed = self._longest + (0.0 if getattr(module, 'tuning', False) else self.tail)
        if parallel.agreed(self.deadline.allows(needed)):
            return
        self.ended = finished
        if hasattr(module, 'end_early'):
            module.end_early()
        else:
            trainer.fit_loop.max_epochs = finished

    def state_dict(self) -> dict[str, Any]:
        return {'ended': self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.ended = state_dict['ended']
