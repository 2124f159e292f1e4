"""One run of Lightning's trainer as every stage needs it: reproducible, resumable, with progress for people and for programs."""

from __future__ import annotations

import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, TQDMProgressBar
from tqdm.auto import tqdm

from nni_darts._nni import Trainer
from nni_darts.errors import InputError
from nni_darts.files import write_text

__all__ = [
    'DecisionBar',
    'EpochLog',
    'OnEpoch',
    'RandomStates',
    'create_trainer',
    'epochs_of',
    'last_checkpoint',
    'peak_memory_mib',
    'quiet_lightning',
]

OnEpoch = Callable[[dict[str, Any]], None]
"""Called after each epoch with its measurements: its line of ``metrics.jsonl``."""

CHECKPOINT, METRICS = 'last.ckpt', 'metrics.jsonl'


class RandomStates(pl.Callback):
    """Keeps the random states of Python, numpy and torch in the checkpoint: a resumed run draws what the unbroken one would."""

    def state_dict(self) -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state()
        return {
            'python': [version, list(internal), gauss],
            'numpy': [name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
            'torch': torch.get_rng_state(),
            'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # At once: Lightning fetches (and augments) the first batch before the first hook of the resumed epoch.
        version, internal, gauss = state_dict['python']
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state_dict['numpy']
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state_dict['torch'])
        if state_dict['cuda'] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict['cuda'])


class EpochLog(Checkpoint):
    """After each epoch: its measurements as a line of ``metrics.jsonl`` and as a call of ``on_epoch``.

    A loss that is not finite ends the run there, with the epoch and the learning rate in the message. (It is a ``Checkpoint`` because
    Lightning calls these after the module's own hook, which computes the epoch's metrics.)

    Args:
        path: the file; lines of epochs that a resumed run repeats are replaced.
        on_epoch: called with the measurements.
        extra: further measurements of the epoch, asked for after it.
    """

    def __init__(self, path: Path, on_epoch: OnEpoch | None = None, extra: Callable[[], dict[str, Any]] | None = None) -> None:
        self.path = path
        self.on_epoch = on_epoch
        self.extra = extra
        self._started = self._rate = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started = time.monotonic()
        self._rate = trainer.optimizers[0].param_groups[0]['lr']

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()}
        if not np.isfinite(values.get('train_loss', 0.0)):
            raise ArithmeticError(
                f'the training loss is {values["train_loss"]} in epoch {trainer.current_epoch + 1} at learning rate {self._rate:.4g}: '
                'the training has diverged; lower the learning rate'
            )
        lines = [line for line in _lines(self.path) if json.loads(line)['epoch'] < trainer.current_epoch + 1]
        seconds = round(time.monotonic() - self._started, 2)
        total = round(seconds + (json.loads(lines[-1])['total_seconds'] if lines else 0), 2)
        record = {'epoch': trainer.current_epoch + 1, 'of': trainer.max_epochs, **values, 'seconds': seconds, 'total_seconds': total}
        record |= self.extra() if self.extra else {}
        write_text(self.path, ''.join(line + '\n' for line in [*lines, json.dumps(record)]))
        if self.on_epoch:
            self.on_epoch(record)


def _lines(path: Path) -> list[str]:
    return path.read_text('utf-8').splitlines() if path.exists() else []


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The measurements of the epochs that ran in this folder, now or before a resume."""
    return [json.loads(line) for line in _lines(folder / METRICS)]


class DecisionBar:
    """On a terminal, a bar for each choice that a selection scores."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def scored(self, label: str, batches: int, total: int | None) -> None:
        """Shows on how many validation batches a choice has been scored."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = tqdm(total=total, desc=f'scoring {label}', unit='batch', leave=False, file=sys.stderr)
        self._bar.update(batches - self._bar.n)
        if batches == total:
            self.close()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Bar(TQDMProgressBar):
    """Lightning's bar without its version number."""

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, module)
        items.pop('v_num', None)
        return items


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one."""
    path = folder / CHECKPOINT
    return path if path.exists() else None


def create_trainer(
    folder: Path,
    *,
    epochs: int,
    accelerator: str,
    precision: str,
    gradient_clip: float | None = None,
    on_epoch: OnEpoch | None = None,
    extra: Callable[[], dict[str, Any]] | None = None,
) -> pl.Trainer:
    """A Lightning trainer that writes a checkpoint and a line of ``metrics.jsonl`` into ``folder`` after each epoch.

    Args:
        gradient_clip: norm for Lightning to clip to; one-shot strategies clip themselves and need None here.
        others: as in the recipe and for :class:`EpochLog`.

    Raises:
        InputError: if the accelerator is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    callbacks: list[pl.Callback] = [
        RandomStates(),
        EpochLog(folder / METRICS, on_epoch, extra),
        ModelCheckpoint(
            folder, filename='last', save_top_k=1, every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
        ),
    ]
    interactive = sys.stderr.isatty()
    if interactive:
        callbacks.append(_Bar(leave=True))
    try:
        return Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            devices=1,
            precision=precision,
            gradient_clip_val=gradient_clip,
            callbacks=callbacks,
            default_root_dir=str(folder),
            enable_progress_bar=interactive,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (pl.utilities.exceptions.MisconfigurationException, RuntimeError) as error:
        raise InputError(f'accelerator {accelerator!r} cannot be used here: {error}') from None


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's advice about loaders and loggers does not concern a user of this package."""
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
    """Peak memory so far: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() // 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == 'darwin' else 2**10)
