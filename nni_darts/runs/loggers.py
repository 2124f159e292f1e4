"""Where measurements go besides the output folder's own files (``logger`` in a recipe), through Lightning's loggers. Imports no torch."""

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
"""Logger → module that must be there, and what to install for it."""

_PROJECT = 'nni-darts'


def check_logger(recipe: Recipe) -> None:
    """Makes sure that what the recipe's logger needs is installed.

    Raises:
        InputError: if it is not; it says what to install.
    """
    module, package = _PACKAGES.get(recipe.logger or '', ('', ''))
    if module and find_spec(module) is None:
        raise InputError(f'logger: {recipe.logger} needs a package that is not installed: pip install {package}, or leave logger out')


def create_logger(recipe: Recipe, folder: Path, what: Mapping[str, Any]) -> Logger | None:
    """The recipe's logger for a run, with all settings noted; None if it has none.

    Everything is written into the output folder: ``tensorboard/``, ``csv/version_0/``, ``wandb/`` (offline, unless ``WANDB_MODE`` says
    otherwise) or ``mlruns/`` (unless ``MLFLOW_TRACKING_URI`` says otherwise). A resumed run of csv and mlflow is another version, or run.

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
        (folder / 'wandb').mkdir(parents=True, exist_ok=True)  # else it writes into a temporary folder
        # A resumed run has the same id: the two parts are one run once they are uploaded.
        identifier = hashlib.blake2b(str(folder.absolute()).encode(), digest_size=8).hexdigest()
        offline = os.environ['WANDB_MODE'] == 'offline'
        logger = loggers.WandbLogger(project=_PROJECT, name=name, save_dir=str(folder), id=identifier, offline=offline)
    else:
        os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')  # newer versions want a data base and more packages for it
        address = os.environ.get('MLFLOW_TRACKING_URI') or (folder / 'mlruns').absolute().as_uri()
        logger = loggers.MLFlowLogger(_PROJECT, run_name=name, tracking_uri=address)
    # MLflow refuses keys with the + and, on Windows, the : of a strategy's name.
    key = file_name if recipe.logger == 'mlflow' else str
    logger.log_hyperparams({key(name): value for name, value in _flat({**what, **recipe.to_dict()})})
    return logger


def _flat(values: Mapping[str, Any], path: str = '') -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{path}{key}.')
        else:
            yield path + key, value if isinstance(value, (int, float, str)) else str(value)
