"""The position of a run in its data, so that a resumed run continues with the next batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pytorch_lightning as pl

__all__ = ['Pass', 'ResumableDataModule']

T = TypeVar('T')


class Pass:
    """The passes over a loader's data: the epoch of the next pass, and the number of its batches that a resumed run has already seen.

    This is a base class of samplers whose draws depend on ``epoch`` only. Lightning calls :meth:`set_epoch`.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._seen = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next pass."""
        if epoch != self.epoch:
            self.begin(epoch, 0)

    def begin(self, epoch: int, seen: int) -> None:
        """Makes the next pass continue an epoch.

        Args:
            epoch: the epoch.
            seen: number of its batches that are finished, which the next pass leaves out. Later passes are complete.
        """
        self.epoch, self._seen = epoch, seen

    def rest(self, batches: Iterable[T], count: int) -> Iterator[T]:
        """Returns the remaining batches of a pass.

        A loader that is shorter than the epoch may have started again in between.

        Args:
            batches: all batches of the pass.
            count: number of these batches.
        """
        seen, self._seen = self._seen, 0
        return islice(batches, seen % count if count else 0, None)


class ResumableDataModule(pl.LightningDataModule):
    """A data module that saves the position of its loaders in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._position = (0, 0)

    def placed(self, passes: Pass) -> None:
        """Moves the pass of a new loader to the position of the run."""
        passes.begin(*self._position)

    def state_dict(self) -> dict[str, Any]:
        """Returns the current epoch and the number of its finished batches."""
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]  # Lightning calls this only during training
        epoch = loop.epoch_progress.current.processed
        under_way = epoch == loop.epoch_progress.current.completed
        return {'epoch': epoch, 'batches': loop.epoch_loop.batch_progress.current.completed if under_way else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the position from a checkpoint; loaders created from now on continue there."""
        self._position = state_dict['epoch'], state_dict['batches']
