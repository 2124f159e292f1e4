"""The checkpoint of a run: written atomically, with the previous one kept, and checked for damage before use."""

from __future__ import annotations

import logging
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from nni_darts import parallel
from nni_darts.files import CHECKPOINT, PREVIOUS, no_room, replacing

__all__ = ['CheckpointFiles', 'Checkpoints', 'RandomStates', 'read_checkpoint']

_logger = logging.getLogger(__name__)


class RandomStates(pl.Callback):
    """Saves the random states of Python, numpy and torch, so that a resumed run draws the same numbers as an uninterrupted one."""

    def state_dict(self) -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        return {
            'python': [version, list(internal), gauss],
            'numpy': [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
            'torch': torch.get_rng_state(),
            # Only the GPU that this process uses, if any.
            'cuda': [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        version, internal, gauss = state_dict['python']
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state_dict['numpy']
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state_dict['torch'])
        if state_dict['cuda']:
            torch.cuda.set_rng_state(state_dict['cuda'][0])  # initialises the GPU if necessary


class CheckpointFiles(TorchCheckpointIO):
    """Replaces the checkpoint atomically and keeps the previous one. A full disk costs the checkpoint, but not the run.

    If several ranks share a run (:mod:`nni_darts.parallel`), the first rank writes its own state and everything that differs on the other
    ranks: hidden states, running statistics, and measurements of the current epoch.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes the file; an error is only a warning."""
        if parallel.world_size() > 1:
            checkpoint[_RANKS] = _differences_between_ranks(checkpoint)
        if not parallel.is_first():
            return
        path = Path(path)
        try:
            with replacing(path, keep=path.with_name(PREVIOUS)) as file:
                torch.save(checkpoint, file)
        except OSError as error:
            reason = no_room(error) or error.strerror
            _logger.warning('the checkpoint %s could not be written, and the run continues without it: %s', path, reason)

    def load_checkpoint(self, path: str | Path, *args: Any, **settings: Any) -> dict[str, Any]:
        """Returns the state of this rank."""
        checkpoint = super().load_checkpoint(path, *args, **settings)
        for place, value in checkpoint.pop(_RANKS, {}).get(parallel.rank(), []):
            *outer, last = place
            inner: Any = checkpoint
            for key in outer:
                inner = inner[key]
            inner[last] = value
        return checkpoint


_RANKS = 'ranks'
_Place = tuple[Any, ...]
"""The path to a value in nested dicts and lists: a sequence of keys."""


def _differences_between_ranks(checkpoint: dict[str, Any]) -> dict[int, list[tuple[_Place, Any]]]:
    """Returns rank → the values in its checkpoint that differ from those of the first rank, with their paths."""
    # Optimizers, schedules and loops are the same on all ranks, because they follow from averaged gradients.
    values = {place: value for key in checkpoint if key not in _SAME for place, value in _values(checkpoint[key], (key,))}
    digests = {place: parallel.digest(value) for place, value in values.items()}
    first = parallel.agreed(digests)
    different = [
        (place, value.cpu() if isinstance(value, torch.Tensor) else value)
        for place, value in values.items()
        if first.get(place) != digests[place]
    ]
    return dict(enumerate(parallel.gathered(different)))


_SAME = ('optimizer_states', 'lr_schedulers', 'loops')


def _values(value: Any, place: _Place) -> Iterator[tuple[_Place, Any]]:
    """Yields the leaves of nested dicts and lists, each with its path."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(inner, (*place, key))
    else:
        yield place, value


class Checkpoints(Checkpoint):
    """Writes ``last.ckpt`` after each epoch and, unless ``steps`` is None, after every ``steps`` training batches.

    This is a ``Checkpoint`` because Lightning calls such callbacks after the module's own hook at the end of an epoch.
    """

    def __init__(self, folder: Path, steps: int | None) -> None:
        self.path = folder / CHECKPOINT
        self.steps = steps

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        # Not at the end of a batch, because the module has not finished with the batch there.
        if self.steps and batch_idx and batch_idx % self.steps == 0:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning has already counted the batch that is about to begin, which is not part of the state.
        progress = checkpoint['loops']['fit_loop']['epoch_loop.batch_progress']
        if progress['current']['ready'] > progress['current']['completed']:
            progress['is_last_batch'] = False
            for counts in (progress['current'], progress['total']):
                counts['ready'] = counts['completed']


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without the data of its tensors, after checking every byte of it.

    Raises:
        ValueError: if the checkpoint is damaged; the message says why.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
        if torn is not None:
            raise ValueError(f'{torn} is not as it was written')
        content = torch.load(path, map_location='meta', weights_only=True)
        if not isinstance(content, dict) or 'loops' not in content:
            raise ValueError('it is not a checkpoint of a run')
    except Exception as error:  # torch, zipfile and pickle raise many types for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise ValueError(reason) from None
    return content
