"""Sends measurements to other programs through Lightning's loggers (``logger`` in a recipe). Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.strategies.registry import file_name

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

__all__ = ['check_logger', 'create_logger']

_PACKAGES = {'tensorboard': ('tensorboard', 'tensorboard'), 'wandb': ('wandb', 'wandb'), 'mlflow': ('mlflow', 'mlflow-skinny')}
"""Logger → the module that it needs, and the package to install for it."""

_PROJECT = 'nni-darts'


def check_logger(recipe: Recipe) -> None:
    """Checks that the package of the recipe's logger is installed.

    Raises:
        InputError: if it is not installed; the message says what to install.
    """
    module, package = _PACKAGES.get(recipe.logger or '', ('', ''))
    if module and find_spec(module) is None:
        raise InputError(f'logger: {recipe.logger} needs a package that is not installed: pip install {package}, or leave logger out')


def create_logger(recipe: Recipe, folder: Path, what: Mapping[str, Any]) -> Logger | None:
    """Returns the recipe's logger for a run, with all settings recorded; None if the recipe has no logger.

    Everything is written to the output folder: ``tensorboard/``, ``csv/version_0/``, ``wandb/`` (offline, unless ``WANDB_MODE`` is set) or
    ``mlruns/`` (unless ``MLFLOW_TRACKING_URI`` is set). With csv and mlflow, a resumed run becomes a new version or run.

    Args:
        recipe: all settings.
        folder: the output folder.
        what: stage, seed and strategy of the run.
    """
    if recipe.logger is None:
        return None
    check_logger(recipe)
    from pytorch_lightning import loggers

    name = ' '.join(str(value) for value in (recipe.name, *what.values()))
    logger: Logger
    if recipe.logger == 'tensorboard':
        logger = loggers.TensorBoardLogger(str(folder), name='', version='tensorboard', default_hp_metric=False)
    elif recipe.logger == 'csv':
        logger = loggers.CSVLogger(str(folder), name='csv')
    elif recipe.logger == 'wandb':
        os.environ.setdefault('WANDB_MODE', 'offline')
        os.environ.setdefault('WANDB_SILENT', 'true')
        (folder / 'wandb').mkdir(parents=True, exist_ok=True)  # otherwise it writes to a temporary folder
        # A resumed run has the same id, so that both parts are one run after uploading.
        identifier = hashlib.blake2b(str(folder.absolute()).encode(), digest_size=8).hexdigest()
        offline = os.environ['WANDB_MODE'] == 'offline'
        logger = loggers.WandbLogger(project=_PROJECT, name=name, save_dir=str(folder), id=identifier, offline=offline)
    else:
        os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')  # newer versions require a database and more packages for this
        address = os.environ.get('MLFLOW_TRACKING_URI') or (folder / 'mlruns').absolute().as_uri()
        logger = loggers.MLFlowLogger(_PROJECT, run_name=name, tracking_uri=address)
    # MLflow does not accept the + or, on Windows, the : of a strategy's name in keys.
    key = file_name if recipe.logger == 'mlflow' else str
    logger.log_hyperparams({key(name): value for name, value in _flat({**what, **recipe.to_dict()})})
    return logger


def _flat(values: Mapping[str, Any], path: str = '') -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and plain values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{path}{key}.')
        else:
            yield path + key, value if isinstance(value, (int, float, str)) else str(value)
