"""A moment of a search: the epoch, and the number of epochs. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ['Moment']


class Moment(NamedTuple):
    """An epoch of a search.

    Attributes:
        epoch: number of the epoch, from 0. While a selection fine-tunes, it is ``epochs`` or more.
        epochs: number of epochs of the search, without fine-tuning.

    Example:
        >>> Moment(3, 4).progress, Moment(3, 4).elapsed
        (1.0, 0.75)
    """

    epoch: int
    epochs: int

    @property
    def progress(self) -> float:
        """The progress of the search: 0 in its first epoch, 1 in its last, and above 1 while a selection fine-tunes."""
        return self.epoch / max(1, self.epochs - 1)

    @property
    def elapsed(self) -> float:
        """The portion of the search's epochs that is finished; 1 or more while a selection fine-tunes."""
        return self.epoch / max(1, self.epochs)

    @property
    def tuning(self) -> bool:
        """Whether the search is over and a selection fine-tunes."""
        return self.epoch >= self.epochs
