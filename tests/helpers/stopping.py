"""A run that is interrupted after an epoch, as the listener of its epochs does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ['Stop', 'stop_at']


class Stop(Exception):
    """Interrupts a run."""


def stop_at(epoch: int) -> Callable[[dict[str, Any]], None]:
    """Returns an ``on_epoch`` that interrupts the run after an epoch."""

    def on_epoch(record: dict[str, Any]) -> None:
        if record['epoch'] == epoch:
            raise Stop

    return on_epoch
