"""Runs that are interrupted after an epoch, and the measurements that must be the same after they are resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.recipes import Recipe
from tests.helpers import running

__all__ = ['Stop', 'broken_and_resumed', 'measured', 'stop_at']


class Stop(Exception):
    """Interrupts a run."""


def stop_at(epoch: int) -> Callable[[dict[str, Any]], None]:
    """Returns an ``on_epoch`` that interrupts the run after an epoch."""

    def on_epoch(record: dict[str, Any]) -> None:
        if record['epoch'] == epoch:
            raise Stop

    return on_epoch


def measured(folder: Path) -> list[dict]:
    """Returns the measurements of a run's epochs, without times."""
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in line.items() if 'seconds' not in key} for line in lines]


def broken_and_resumed(recipe: Recipe, strategy: str, folder: Path, epoch: int = 2) -> tuple[tuple, tuple]:
    """Returns the outcomes of an uninterrupted search, and of one that stopped at an epoch's end before its checkpoint and was resumed."""
    unbroken = running.search(recipe, strategy, 1, folder / 'unbroken')
    with pytest.raises(Stop):
        running.search(recipe, strategy, 1, folder / 'broken', on_epoch=stop_at(epoch))
    torch.manual_seed(999)
    return unbroken, running.search(recipe, strategy, 1, folder / 'broken', resume=True)
