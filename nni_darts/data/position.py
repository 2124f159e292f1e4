"""The position of a run in its data, so that a resumed run continues with the next batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pytorch_lightning as pl

__all__ = ['Pass', 'ResumableDataModule']

T = TypeVar('T')


class Pass:
    """The passes over a loader's data: which epoch comes next, and how many of its batches a resumed run has seen.

    For a sampler, whose draws must depend on ``epoch`` alone. Lightning calls :meth:`set_epoch`.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._seen = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses what the next pass draws."""
        if epoch != self.epoch:
            self.begin(epoch, 0)

    def begin(self, epoch: int, seen: int) -> None:
        """The next pass is that of an epoch of which so many batches are done. It leaves them out; passes after it begin at the start."""
        self.epoch, self._seen = epoch, seen

    def rest(self, batches: Iterable[T], count: int) -> Iterator[T]:
        """Those of a pass's ``count`` batches that are left. (A loader that is shorter than the epoch has come round in between.)"""
        seen, self._seen = self._seen, 0
        return islice(batches, seen % count if count else 0, None)


class ResumableDataModule(pl.LightningDataModule):
    """A data module whose loaders' passes are in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._position = (0, 0)

    def placed(self, passes: Pass) -> None:
        """Brings a new loader's pass to where the run stands."""
        passes.begin(*self._position)

    def state_dict(self) -> dict[str, Any]:
        """The epoch under way and how many of its batches are done."""
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]  # Lightning asks only where it trains
        epoch = loop.epoch_progress.current.processed
        under_way = epoch == loop.epoch_progress.current.completed
        return {'epoch': epoch, 'batches': loop.epoch_loop.batch_progress.current.completed if under_way else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the position of a checkpoint; loaders made from now on continue there."""
        self._position = state_dict['epoch'], state_dict['batches']
