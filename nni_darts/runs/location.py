"""Finds the file of a trained network from a user's path. It does not import torch, so that a wrong path is refused immediately."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from nni_darts.errors import InputError
from nni_darts.recipes import RUN, TEXT_NAMES

__all__ = ['WEIGHTS', 'ModelFile', 'find_model', 'missing_packages']

WEIGHTS = 'weights.pt'
TRAINING = 'retrain'
"""The folder of the training inside the output folder of commands that do more than train."""

_FORMS = 'the output folder of nni-darts fit or retrain, its weights.pt, or a file that nni-darts export wrote (.onnx, .pt2)'


@dataclass(frozen=True)
class ModelFile:
    """A file that has a trained network.

    Attributes:
        kind: format of the file.
        path: path of the file.

    Example:
        ``find_model(Path('out/retrain')).path``
    """

    kind: Literal['weights', 'onnx', 'pt2']
    path: Path


def find_model(path: Path) -> ModelFile:
    """Finds the file of a trained image network.

    Args:
        path: output folder of a training, ``weights.pt``, ``.onnx`` or ``.pt2``.

    Raises:
        InputError: if there is no network, its training is not finished, it is a language model, or a package to read it is missing.
    """
    if not path.exists():
        raise InputError(f'there is no file or folder {path}; a model is {_FORMS}.')
    if path.is_dir():
        return ModelFile('weights', _weights_in(path))
    if path.suffix == '.pt':
        _refuse_text(path.parent if path.name == WEIGHTS else None)
        return ModelFile('weights', path)
    if path.suffix == '.onnx':
        if missing := missing_packages('onnxruntime'):
            raise InputError(f'{path} needs {missing[0]}: pip install {missing[0]}')
        return ModelFile('onnx', path)
    if path.suffix == '.pt2':
        return ModelFile('pt2', path)
    raise InputError(f'{path} is not a model; a model is {_FORMS}.')


def missing_packages(*names: str) -> list[str]:
    """Returns the names of packages that are not installed."""
    return [name for name in names if find_spec(name) is None]


def _weights_in(folder: Path) -> Path:
    """Returns the ``weights.pt`` of an output folder."""
    found = next((inner for inner in (folder, folder / TRAINING) if (inner / WEIGHTS).is_file()), None)
    if found is not None:
        _refuse_text(found)
        return found / WEIGHTS
    stage = _run(folder).get('stage')
    if stage == 'search':
        raise InputError(
            f'{folder} holds a search, not a trained network; nni-darts retrain --genotype {folder} --output FOLDER trains its cell'
        )
    if stage is not None:
        raise InputError(f'the training in {folder} is not finished; run the command that started it again with --resume.')
    raise InputError(f'{folder} has no {WEIGHTS}; a model is {_FORMS}.')


def _refuse_text(folder: Path | None) -> None:
    recipe = {} if folder is None else _run(folder).get('recipe')
    data = recipe.get('data') if isinstance(recipe, dict) else None
    if isinstance(data, dict) and data.get('name') in TEXT_NAMES:
        raise InputError(f'{folder} holds a language model, which cannot classify images')


def _run(folder: Path) -> dict[str, Any]:
    """Returns the content of ``run.json``; empty if it is missing or damaged, because the weights can be used without it."""
    try:
        values = json.loads((folder / RUN).read_text('utf-8'))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
