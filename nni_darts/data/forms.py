"""The forms in which files and functions provide a data set: mappings of arrays with the usual names, tuples, and torch data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from nni_darts.data.arrays import Arrays, from_arrays
from nni_darts.data.base import ImageData
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['NPZ_KEYS', 'from_mapping', 'from_value', 'unused']

NPZ_KEYS = ('train_images', 'train_labels', 'test_images', 'test_labels')

_IMAGES, _LABELS = ('images', 'x', 'data', 'X'), ('labels', 'y', 'targets', 'Y')
_FORMS = (
    f'a mapping with {", ".join(NPZ_KEYS)}, tuples (x_train, y_train), (x_test, y_test), one or two torch data sets of (image, label), '
    'or an ImageData'
)


def _find(keys: Mapping[str, Any], part: str, kinds: tuple[str, ...]) -> str | None:
    """Returns the key of a part's images or labels under any of the usual names; None if there is none."""
    names = [form for kind in kinds for form in ((f'{part}_{kind}', f'{kind}_{part}') if part else (kind,))]
    return next((name for name in names if name in keys), None)


def from_mapping(values: Mapping[str, Any], source: str, settings: DataSettings) -> ImageData:
    """Builds a data set from arrays under the names of an ``.npz``.

    The keys are ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, or ``x_train``, ``y_train`` and so on. Without test
    arrays, or with only ``images`` and ``labels``, ``data.test_portion`` of the images is held out. MedMNIST's ``val_images`` are not used,
    because validation images are cut from the training images.

    Raises:
        InputError: if arrays are missing or invalid.
    """
    part = 'train' if _find(values, 'train', _IMAGES) or _find(values, 'train', _LABELS) else ''
    train = [_find(values, part, kinds) for kinds in (_IMAGES, _LABELS)]
    test = [_find(values, 'test', kinds) for kinds in (_IMAGES, _LABELS)]
    for found, names in ((train, NPZ_KEYS[:2]), (test, NPZ_KEYS[2:])):
        missing = [name for name, key in zip(names, found) if key is None]
        if missing and (found is train or len(missing) == 1):
            held = ', '.join(map(str, values)) or 'nothing'
            raise InputError(
                f'{source} lacks {", ".join(missing)} (it holds {held}); an image .npz holds {", ".join(NPZ_KEYS)}, or x_train, y_train, '
                'x_test, y_test; test arrays may be left out'
            )
    idle = ', '.join(str(key) for key in values if unused(str(key)))
    notes = (f'{source}: {idle} are not used: validation images are cut from the training images',) if idle else ()
    arrays = tuple(values[key] for key in train if key is not None), tuple(values[key] for key in test if key is not None)
    return from_arrays(arrays[0], arrays[1] or None, source, settings, notes=notes)


def unused(key: str) -> bool:
    """Returns whether an array with this name belongs to a validation part, which MedMNIST has."""
    return key.startswith(('val_', 'valid_')) or key.endswith('_val')


def from_value(value: Any, source: str, settings: DataSettings) -> ImageData:
    """Builds a data set from the return value of a user's function. Raises InputError for any form that the message does not list."""
    if isinstance(value, ImageData):
        return value
    if isinstance(value, Mapping) and set(value) in ({'train'}, {'train', 'test'}):
        value = (value['train'], value['test']) if 'test' in value else value['train']
    if isinstance(value, Mapping):
        return from_mapping(value, source, settings)
    parts = _parts(value)
    if parts is None:
        raise InputError(f'{source} must return {_FORMS}; it returned {_type(value)}')
    train, test = (_arrays(part, f'{source}, {name}') if part is not None else None for part, name in zip(parts, ('train', 'test')))
    return from_arrays(train, test, source, settings, classes=_class_names(parts[0]))  # type: ignore[arg-type]


def _parts(value: Any) -> tuple[Any, Any] | None:
    """Returns the training and the test part, each a data set or a pair of arrays or None if it is missing; None for any other form."""
    if _is_dataset(value):
        return value, None
    if not isinstance(value, (tuple, list)):
        return None
    if len(value) == 4 and all(map(_is_array, value)):
        return (value[0], value[1]), (value[2], value[3])
    if len(value) != 2:
        return None
    if all(_is_dataset(part) for part in value):
        return value[0], value[1]
    if all(isinstance(part, (tuple, list)) and len(part) == 2 and all(map(_is_array, part)) for part in value):
        return tuple(value[0]), tuple(value[1])
    return (tuple(value), None) if all(map(_is_array, value)) else None


def _is_dataset(value: Any) -> bool:
    return isinstance(value, Dataset) or (
        hasattr(value, '__getitem__')
        and hasattr(value, '__len__')
        and not isinstance(value, (tuple, list, Mapping))
        and not _is_array(value)
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor)) or (isinstance(value, list) and (not value or not isinstance(value[0], tuple)))


def _type(value: Any) -> str:
    """Returns the name of a value's type, with the types of its parts."""
    name = type(value).__name__
    return f'{name} of {", ".join(type(part).__name__ for part in value)}' if isinstance(value, (tuple, list)) and len(value) < 9 else name


def _class_names(part: Any) -> tuple[str, ...]:
    """Returns the names of the classes, which torchvision's data sets have."""
    names = getattr(part, 'classes', None)
    return tuple(map(str, names)) if isinstance(names, (tuple, list)) else ()


def _arrays(part: Any, source: str) -> Arrays:
    """Loads a pair of arrays, or every item of a data set, into memory.

    Raises:
        InputError: for items that are not (image, label), or images of different sizes.
    """
    if isinstance(part, tuple):
        return tuple(np.asarray(value.cpu() if isinstance(value, Tensor) else value) for value in part)  # type: ignore[return-value]
    images: list[Any] = []
    labels: list[Any] = []
    for number, item in enumerate(_items(part)):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise InputError(f'{source}: item {number} of the data set must be (image, label), not {_type(item)}')
        image = _pixels(item[0])
        if images and (image.shape != images[0].shape or image.dtype != images[0].dtype):
            raise InputError(
                f'{source}: images of a data set must have one size and type; image 0 is {images[0].shape} {images[0].dtype}, image '
                f'{number} {image.shape} {image.dtype}: resize them in the function, or use data.name = folder'
            )
        images.append(image)
        labels.append(np.asarray(item[1]))
    if not images:
        raise InputError(f'{source}: there are no images')
    return np.stack(images), np.stack(labels)


def _items(data: Any) -> Iterator[Any]:
    return (data[index] for index in range(len(data)))


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, Image.Image):
        return np.asarray(image if image.mode in ('L', 'RGB') else image.convert('RGB'))
    return np.asarray(image.cpu() if isinstance(image, Tensor) else image)
