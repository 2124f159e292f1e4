"""One run of Lightning's trainer for any stage: reproducible, resumable, with progress for users and programs."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import MixedPrecision

from nni_darts import parallel
from nni_darts._nni import Trainer
from nni_darts.activity import announce
from nni_darts.errors import InputError
from nni_darts.files import CHECKPOINT, METRICS, PREVIOUS, write_text
from nni_darts.recipes import Recipe
from nni_darts.training.checkpoints import CheckpointFiles, Checkpoints, RandomStates, read_checkpoint
from nni_darts.training.divergence import StopOnDivergence

__all__ = [
    'Announcements',
    'EpochLog',
    'OnEpoch',
    'create_trainer',
    'device_type',
    'epochs_of',
    'half_precision',
    'last_checkpoint',
    'peak_memory_mib',
    'quiet_lightning',
]

OnEpoch = Callable[[dict[str, Any]], None]
"""A function that is called after each epoch with its measurements, which are its line of ``metrics.jsonl``."""


_logger = logging.getLogger(__name__)


class EpochLog(Checkpoint):
    """Writes the measurements of each epoch as a line of ``metrics.jsonl``, and passes them to ``on_epoch``.

    This is a ``Checkpoint`` because Lightning calls such callbacks after the module's own hook, which computes the epoch's metrics.

    Args:
        path: path of the file; lines of epochs that a resumed run repeats are replaced.
        on_epoch: called with the measurements.
        extra: returns further measurements at the end of the epoch.
        around: numbers of epochs that other runs write to the same file before and after this one.
    """

    def __init__(
        self,
        path: Path,
        on_epoch: OnEpoch | None = None,
        extra: Callable[[], dict[str, Any]] | None = None,
        around: tuple[int, int] = (0, 0),
    ) -> None:
        self.path = path
        self.around = around
        self.on_epoch = on_epoch
        self.extra = extra
        self._before = 0.0  # seconds of the current epoch before the checkpoint from which the run continues
        self._started = 0.0
        self._rate: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {'seconds': self._before + time.monotonic() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict['seconds']

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._before, self._started = 0.0, time.monotonic()
        self._rate = None

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        if self._rate is None:  # selections set the rate when an epoch starts; at its end the schedule has already changed it
            self._rate = _learning_rate(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()}
        before, after = self.around
        epoch = before + trainer.current_epoch + 1
        lines = [line for line in _lines(self.path) if json.loads(line)['epoch'] < epoch]
        seconds = round(self._before + time.monotonic() - self._started, 2)
        total = round(seconds + (json.loads(lines[-1])['total_seconds'] if lines else 0), 2)
        of = before + int(trainer.max_epochs or 0) + after
        record: dict[str, Any] = {'epoch': epoch, 'of': of, **values, 'seconds': seconds, 'total_seconds': total}
        record |= {} if self._rate is None else {'learning_rate': self._rate}
        record |= self.extra() if self.extra else {}
        write_text(self.path, ''.join(line + '\n' for line in [*lines, json.dumps(record)]))
        for logger in trainer.loggers:
            chances = {
                f'{label}/{name}': value for label, table in record.get('probabilities', {}).items() for name, value in table.items()
            }
            logger.log_metrics({'seconds': seconds, **chances}, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
            logger.save()
        if self.on_epoch:
            self.on_epoch(record)


def _learning_rate(trainer: pl.Trainer) -> float | None:
    """Returns the learning rate of the weights to six digits; None if no weights are trained."""
    optimizers = (optimizer for optimizer in trainer.optimizers if not getattr(optimizer, 'is_arch_optimizer', False))
    return next((float(f'{group["lr"]:.6g}') for optimizer in optimizers for group in optimizer.param_groups), None)


def _lines(path: Path) -> list[str]:
    return path.read_text('utf-8').splitlines() if path.exists() else []


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the measurements of all epochs in a folder, including epochs before a resume."""
    return [json.loads(line) for line in _lines(folder / METRICS)]


class Announcements(pl.Callback):
    """Announces (:mod:`nni_darts.activity`) each epoch, and each batch of training, validation and testing.

    Args:
        around: numbers of epochs of other runs of the same search before and after this one.

    Example:
        >>> Announcements(around=(2, 0)).around
        (2, 0)
    """

    def __init__(self, around: tuple[int, int] = (0, 0)) -> None:
        self.around = around

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._announce_epochs(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._announce_epochs(trainer)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._announce_epochs(trainer)

    def _announce_epochs(self, trainer: pl.Trainer) -> None:
        before, after = self.around
        announce('epochs', before + trainer.current_epoch, before + int(trainer.max_epochs or 0) + after, lasting=True)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int) -> None:
        _announce_batch('training', index, trainer.num_training_batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        _announce_batch('validation', index, trainer.num_val_batches[loader])

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        _announce_batch('testing', index, trainer.num_test_batches[loader])


def _announce_batch(what: str, index: int, of: float) -> None:
    announce(what, index + 1, int(of) if math.isfinite(of) else None)


def last_checkpoint(folder: Path, log: Path | None = None, before: int = 0) -> Path | None:
    """Returns the checkpoint to continue from, or None: the last one, or the previous one if the last is damaged, which is then removed.

    Args:
        folder: folder of the checkpoints.
        log: folder of ``metrics.jsonl`` if it is another folder.
        before: number of epochs that other runs have written to that file before this one.

    Raises:
        ValueError: if all checkpoints are damaged.
    """
    reasons: list[str] = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        if path.exists():
            try:
                finished = read_checkpoint(path)['loops']['fit_loop']['epoch_progress']['current']['processed']
                if len(epochs_of(log or folder)) < before + finished:
                    raise ValueError(f'{METRICS} has fewer epochs')
                if reasons:
                    _logger.warning('%s is damaged; the run continues from the checkpoint before it', folder / CHECKPOINT)
                    (folder / CHECKPOINT).unlink()  # otherwise the next checkpoint to be written would push out the older one
                return path
            except ValueError as error:
                reasons.append(f'{path.name}: {error}')
    if reasons:
        raise ValueError('; '.join(reasons))
    return None


def create_trainer(
    folder: Path,
    recipe: Recipe,
    epochs: int,
    *,
    log: EpochLog | None = None,
    gradient_clip: float | None = None,
    logger: Logger | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Creates a Lightning trainer that writes checkpoints into ``folder``, and a line of ``metrics.jsonl`` after each epoch.

    Args:
        folder: folder for the checkpoints, created if it does not exist.
        recipe: the recipe, for its accelerator, its precision and the number of steps between two checkpoints.
        epochs: number of epochs.
        log: the log of the epochs; None writes ``metrics.jsonl`` in the folder.
        gradient_clip: norm to which Lightning clips gradients; one-shot strategies clip themselves and need None here.
        logger: logger for measurements in addition to the log.
        callbacks: further callbacks, called before those of this package.

    Raises:
        InputError: if the accelerator is not available.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = log or EpochLog(folder / METRICS)
    together: list[pl.Callback] = [
        *callbacks,
        RandomStates(),
        *([log] if parallel.is_first() else []),
        Checkpoints(folder, recipe.checkpoint_steps),
        StopOnDivergence(),
        Announcements(log.around),
    ]
    scaled = half_precision(device_type(recipe.accelerator)) if recipe.precision == '16-mixed' else None
    accelerator, devices = _own_device(recipe.accelerator)
    try:
        return Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            devices=devices,
            precision=None if scaled else recipe.precision,
            gradient_clip_val=gradient_clip,
            callbacks=together,
            default_root_dir=str(folder),
            enable_progress_bar=False,
            logger=logger or False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            # Named explicitly, so that Lightning ignores variables of SLURM, LSF, MPI and torchrun: this package starts its ranks itself.
            plugins=[CheckpointFiles(), LightningEnvironment(), *([scaled] if scaled else [])],
        )
    except (MisconfigurationException, RuntimeError) as error:
        raise InputError(f'accelerator {accelerator!r} cannot be used here: {error}') from None


def half_precision(device: str) -> MixedPrecision:
    """Returns Lightning's ``16-mixed`` with a gradient scaler, on the CPU as well, where Lightning itself would use bfloat16.

    Args:
        device: torch's name for the type of device.
    """
    return MixedPrecision('16-mixed', device, torch.amp.GradScaler(device))


def _own_device(accelerator: str) -> tuple[str, int | list[int]]:
    """Returns Lightning's ``accelerator`` and ``devices`` for the device of this rank: the GPU of its number, or the CPU."""
    if parallel.world_size() == 1:
        return accelerator, 1
    if accelerator != 'cpu' and torch.cuda.is_available():
        return accelerator, [parallel.rank()]
    return ('cpu' if accelerator == 'auto' else accelerator), 1


def device_type(accelerator: str) -> str:
    """Returns torch's name for the type of device that a recipe's ``accelerator`` selects."""
    if accelerator in ('auto', 'gpu') and torch.cuda.is_available():
        return 'cuda'
    if accelerator == 'mps' or (accelerator in ('auto', 'gpu') and torch.backends.mps.is_available()):
        return 'mps'
    return 'cpu'


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppresses Lightning's advice about loaders and loggers, which does not concern a user of this package."""
    levels = {}
    for name in ('pytorch_lightning', 'lightning.pytorch', 'lightning_fabric', 'nni'):
        logger = logging.getLogger(name)
        levels[logger] = logger.level
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', module=r'(pytorch_lightning|lightning_fabric|lightning|torchmetrics)\b.*')
            warnings.filterwarnings('ignore', message='.*does not have many workers.*')
            warnings.filterwarnings('ignore', message='.*lr_scheduler.step.*before.*optimizer.step.*')
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def peak_memory_mib() -> int:
    """Returns the peak memory so far, of the GPU if one is used, otherwise of this process."""
    if parallel.uses_gpu():
        return torch.cuda.max_memory_allocated() // 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == 'darwin' else 2**10)
