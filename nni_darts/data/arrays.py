"""Images and labels as arrays, in the usual layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_darts.data.base import ArrayImages, ImageData
from nni_darts.data.splits import hold_out
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['Arrays', 'from_arrays', 'image_bytes', 'numbered', 'statistics']

Arrays = tuple[Any, Any]
"""Images and their labels."""


def from_arrays(
    train: Arrays, test: Arrays | None, source: str, settings: DataSettings, *, classes: Sequence[str] = (), notes: tuple[str, ...] = ()
) -> ImageData:
    """Builds a data set in memory.

    Images may be (N, H, W), (N, H, W, C) or (N, C, H, W) and have bytes, other whole numbers from 0 to 255, or fractions from 0 to 1.
    Labels may be whole numbers (N,) or (N, 1), one-hot rows, or strings, which become classes in alphabetical order.

    Args:
        train: images and labels.
        test: images and labels; None to hold out ``data.test_portion`` of the training images.
        source: name of the source of the arrays, for messages.
        settings: the rule, seed and portion of a split.
        classes: names of the classes, if the arrays only have their numbers.
        notes: sentences about what the reader left out.

    Returns:
        The data set.

    Raises:
        InputError: for arrays of any other kind; the message names the source and the part.
    """
    parts = {'train': train} if test is None else {'train': train, 'test': test}
    images = {name: _images(part[0], f'{source}, {name}') for name, part in parts.items()}
    images = _as_bytes(images, source)
    labels, names = _labels({name: (part[1], len(images[name])) for name, part in parts.items()}, source)
    classes = tuple(names or classes)
    sets = {name: ArrayImages(torch.from_numpy(images[name]), torch.from_numpy(labels[name])) for name in parts}
    train_set = sets['train']
    num_classes = _count_classes(train_set.labels, source)
    classes = classes if len(classes) == num_classes else tuple(map(str, range(num_classes)))
    if test is None:
        sets['train'], sets['test'] = _held_out(train_set, settings)
        train_set = sets['train']
    test_set = sets['test']
    if train_set.images.shape[1:] != test_set.images.shape[1:]:
        raise InputError(
            f'{source}: training images are {tuple(train_set.images.shape[1:])}, test images {tuple(test_set.images.shape[1:])}'
        )
    if int(test_set.labels.max()) >= num_classes:
        raise InputError(f'{source}: the test labels go up to {int(test_set.labels.max())}, the training labels to {num_classes - 1}')
    mean, std = statistics(train_set.images)
    channels, height, width = train_set.images.shape[1:]
    return ImageData(train_set, test_set, num_classes, channels, (height, width), mean, std, classes=classes, notes=notes)


def _held_out(data: ArrayImages, settings: DataSettings) -> tuple[ArrayImages, ArrayImages]:
    """Splits a data set into a training and a test part."""
    train, test = hold_out(data.labels.tolist(), settings)
    return ArrayImages(data.images[train], data.labels[train]), ArrayImages(data.images[test], data.labels[test])


def _count_classes(labels: Tensor, source: str) -> int:
    num_classes, present = int(labels.max()) + 1, set(labels.tolist())
    first = next(label for label in range(len(labels) + 1) if label not in present)
    if first < num_classes:
        raise InputError(f'{source}: labels must be 0, 1, 2, … without gaps; no training image has label {first}')
    if num_classes < 2:
        raise InputError(f'{source}: at least two classes are needed, but all training labels are 0')
    return num_classes


# Images ---------------------------------------------------------------------------------------------------------------------------


def _images(images: Any, source: str) -> np.ndarray:
    """Returns images of any type as (N, C, H, W)."""
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and _channels_last(images.shape):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise InputError(f'{source}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W), not {images.shape}')
    if not images.size:
        raise InputError(f'{source}: there are no images')
    if images.dtype.kind not in 'buif':
        raise InputError(f'{source}: images must be numbers, uint8 from 0 to 255 or fractions from 0 to 1, not {images.dtype}')
    return images


def image_bytes(images: Any, source: str) -> np.ndarray:
    """Returns a batch of images, in any layout that :func:`from_arrays` accepts, as uint8 (N, C, H, W).

    Args:
        images: the images.
        source: name of their source, for messages.

    Raises:
        InputError: for arrays of any other kind; the message names the source.
    """
    return _as_bytes({'': _images(images, source)}, source)['']


def _as_bytes(images: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Converts all parts to uint8 with the same scale."""
    if any(part.dtype != np.uint8 for part in images.values()):
        kinds = ', '.join(sorted({str(part.dtype) for part in images.values()}))
        low, high = min(float(part.min()) for part in images.values()), max(float(part.max()) for part in images.values())
        floats = any(part.dtype.kind in 'fb' for part in images.values())
        whole = all(part.dtype.kind != 'f' or bool((part == np.round(part)).all()) for part in images.values())
        if floats and 0 <= low and high <= 1:
            images = {name: _fractions(part) for name, part in images.items()}
        elif not (0 <= low and high <= 255 and whole):
            raise InputError(
                f'{source}: images must be uint8, whole numbers from 0 to 255 or fractions from 0 to 1; these are {kinds} '
                f'from {low:.4g} to {high:.4g}; do not normalise them, because that is done here.'
            )
    return {name: np.ascontiguousarray(part, dtype=np.uint8) for name, part in images.items()}


def _fractions(part: np.ndarray) -> np.ndarray:
    """Converts fractions to uint8 one image at a time, which avoids a copy of all images in a larger type."""
    if part.dtype == np.uint8:
        return part
    result = np.empty(part.shape, np.uint8)
    for index, image in enumerate(part):
        result[index] = np.round(image.astype(np.float32) * 255)
    return result


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Returns whether (N, a, b, c) is (N, H, W, C): only c is a usual number of channels, or else c is smaller than a."""
    usual = (1, 3, 4)
    if (shape[1] in usual) != (shape[3] in usual):
        return shape[3] in usual
    return shape[3] < shape[1]


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the exact mean and standard deviation of each channel on the scale from 0 to 1, without a float copy of the images."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.transpose(0, 1):
        counts = torch.bincount(channel.flatten().int(), minlength=256).double()
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        means.append(float(mean))
        deviations.append(max(float(variance.sqrt()), 1e-6))  # a constant channel is not scaled up
    return tuple(means), tuple(deviations)


# Labels ---------------------------------------------------------------------------------------------------------------------------


def _labels(parts: dict[str, tuple[Any, int]], source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Converts the labels of all parts to int64 (N,).

    Args:
        parts: name → labels, and number of images.
        source: name of the source of the labels, for messages.

    Returns:
        The labels of each part, and the names of the classes if the labels were strings.
    """
    flat = {name: _flat(labels, count, f'{source}, {name}') for name, (labels, count) in parts.items()}
    texts = [labels.dtype.kind == 'U' for labels in flat.values()]
    if not any(texts):
        return {name: labels.astype(np.int64) for name, labels in flat.items()}, []
    if not all(texts):
        raise InputError(f'{source}: the labels of one part are strings, those of another are numbers')
    return numbered(flat, source)


def numbered(labels: dict[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Replaces string labels by numbers in the alphabetical order of the training classes.

    Args:
        labels: part → labels.
        source: name of the source of the labels, for messages.

    Returns:
        The numbers of each part, and the names of the classes in order.

    Raises:
        InputError: for a label that no training image has.
    """
    classes = sorted(set(labels['train'].tolist()))
    number = {text: index for index, text in enumerate(classes)}
    unknown = sorted({text for part in labels.values() for text in part.tolist()} - set(classes))
    if unknown:
        raise InputError(f'{source}: test images have the labels {", ".join(unknown)}, which no training image has')
    return {name: np.array([number[text] for text in part.tolist()], np.int64) for name, part in labels.items()}, classes


def _flat(labels: Any, count: int, source: str) -> np.ndarray:
    """Returns labels as whole numbers or strings (N,)."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in 'buif' and len(labels) == count:
        labels = _one_hot(labels, source)
    if labels.dtype.kind in 'OS':
        labels = _texts(labels)
    if labels.dtype.kind in 'fb' and bool((labels == np.round(labels)).all()):
        labels = labels.astype(np.int64)
    if labels.shape != (count,) or labels.dtype.kind not in 'uiU':
        raise InputError(f'{source}: labels must be {count} whole numbers or strings, not {labels.dtype} of shape {labels.shape}')
    if labels.dtype.kind != 'U' and labels.min() < 0:
        raise InputError(f'{source}: labels must be 0 or more, but the smallest is {labels.min()}')
    return labels


def _one_hot(labels: np.ndarray, source: str) -> np.ndarray:
    if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
        raise InputError(
            f'{source}: labels of shape {labels.shape} must have a single 1 in each row (one-hot); '
            'images that belong to several classes or none cannot be classified here'
        )
    return labels.argmax(1)


def _texts(labels: np.ndarray) -> np.ndarray:
    """Returns bytes and lists of strings or numbers as an array of one type; other objects are returned unchanged, to be refused later."""
    values = [value.decode('utf-8', 'replace') if isinstance(value, bytes) else value for value in labels.ravel().tolist()]
    if all(isinstance(value, str) for value in values) or all(isinstance(value, (int, float)) for value in values):
        return np.array(values).reshape(labels.shape)
    return labels
