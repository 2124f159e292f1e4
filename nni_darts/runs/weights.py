"""``weights.pt``: a trained network in one file, with everything that is needed to build and use it.

The format is a promise to older and newer versions: the file is a dictionary of plain data and tensors, loaded with
``weights_only=True``. Versions before 0.2 wrote the bare ``state_dict``, which :func:`read_state_dict` reads, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nni_darts import __version__
from nni_darts.errors import InputError
from nni_darts.files import replacing
from nni_darts.training.divergence import not_finite

__all__ = ['FORMAT', 'SavedNetwork', 'fitting', 'read_state_dict', 'read_weights', 'write_weights']

FORMAT = 1
"""Version of the file format; a reader refuses a higher version."""

_LONGEST = 200
"""Largest number of characters of torch's reason in a message."""

_KINDS = ('images', 'text')


@dataclass(frozen=True)
class SavedNetwork:
    """The content of ``weights.pt``.

    Attributes:
        kind: ``images`` or ``text``, the input of the network.
        genotype: JSON text of its genotype.
        network: keyword arguments of :func:`nni_darts.search_spaces.network_from_genotype` besides the genotype, as plain data.
        description: plain data of :class:`nni_darts.data.Description`; empty for text.
        data: name of the data set on which it was trained.
        state_dict: its weights and buffers.

    Example:
        ``read_weights(Path('out/retrain/weights.pt')).network['channels']``
    """

    kind: str
    genotype: str
    network: dict[str, Any]
    description: dict[str, Any]
    data: str
    state_dict: dict[str, Tensor]


_FIELDS = tuple(field.name for field in fields(SavedNetwork))


def write_weights(path: Path, saved: SavedNetwork) -> None:
    """Replaces the file atomically."""
    content = {name: getattr(saved, name) for name in _FIELDS}
    with replacing(path) as file:
        torch.save({'format': FORMAT, 'nni-darts': __version__, **content}, file)


def read_weights(path: Path) -> SavedNetwork | dict[str, Tensor]:
    """Reads a ``weights.pt``. For a file of an older version, returns the bare ``state_dict``.

    Raises:
        InputError: if there is no such file, it is damaged or of a newer version, or weights are NaN or infinite.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch, zipfile and pickle raise many types for a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:100]
        raise InputError(f'{path} does not hold the weights of a network ({reason})') from None
    if not isinstance(content, Mapping):
        raise InputError(f'{path} does not hold the weights of a network (it holds a {type(content).__name__})')
    if 'format' not in content:
        if not content or not all(isinstance(value, Tensor) for value in content.values()):
            raise InputError(f'{path} does not hold the weights of a network (it is not a file of nni-darts retrain)')
        return _checked(content, path)
    if content['format'] != FORMAT:
        raise InputError(f'{path} was written by nni-darts {content.get("nni-darts")}, a newer version than this one: install that version')
    try:
        saved = SavedNetwork(**{name: content[name] for name in _FIELDS})
    except KeyError as error:
        raise InputError(f'{path} does not hold the weights of a network (it lacks {error})') from None
    if saved.kind not in _KINDS:
        raise InputError(f'{path} holds a network of another kind, {saved.kind!r}; known: {", ".join(_KINDS)}')
    _checked(saved.state_dict, path)
    return saved


def _checked(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Returns the weights. Raises InputError if any is NaN or infinite, because the network's output would look valid but mean nothing."""
    name = not_finite(weights)
    if name:
        raise InputError(
            f'the weights in {path} are NaN or infinite ({name}), so this network is unusable; train it again with a lower learning rate'
        )
    return dict(weights)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the weights and buffers of a ``weights.pt`` of this version or an older one. Raises InputError as :func:`read_weights`."""
    content = read_weights(path)
    return content.state_dict if isinstance(content, SavedNetwork) else content


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Converts torch's error for weights that do not fit a network to an InputError that names the first difference.

    Args:
        path: the file or folder with the weights.
    """
    try:
        yield
    except RuntimeError as error:
        first, *lines = str(error).splitlines()
        if 'loading state_dict' not in first:
            raise
        reason = lines[0].strip().rstrip('.')[:_LONGEST] if lines else first
        raise InputError(
            f'{path} does not fit the network as it is built now ({reason}): the code of the space has changed since, or the file belongs '
            'to another network; restore the code, or start again in another folder'
        ) from None
