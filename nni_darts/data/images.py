"""Image data sets by name. Nothing is downloaded: if data is missing, one sentence says how to get it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torchvision import datasets

from nni_darts.data.arrays import from_arrays
from nni_darts.data.base import ImageData, ImageShape
from nni_darts.data.forms import NPZ_KEYS, from_mapping, unused
from nni_darts.data.function import read_function
from nni_darts.data.hugging_face import list_hf, read_hf
from nni_darts.data.photos import folder_shape, list_csv, list_folder
from nni_darts.data.pictures import Listed, Pictures, build, photo_size
from nni_darts.data.store import stored
from nni_darts.data.transforms import with_margin
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['LISTINGS', 'image_shape', 'load_images', 'trained_on']

_SHAPES = {
    'digits': ImageShape(10, 1, (8, 8)),
    'cifar10': ImageShape(10, 3, (32, 32)),
    'cifar100': ImageShape(100, 3, (32, 32)),
    'svhn': ImageShape(10, 3, (32, 32)),
    'fashion-mnist': ImageShape(10, 1, (28, 28)),
}


def image_shape(settings: DataSettings) -> ImageShape:
    """Returns the shape of a data set, without reading files if the name determines it. Raises InputError as :func:`load_images`."""
    if settings.name in _SHAPES:
        return _SHAPES[settings.name]
    if settings.name == 'imagenet':
        return ImageShape(1000, 3, photo_size(settings))
    if settings.name == 'folder':
        return folder_shape(settings)
    data = load_images(settings)
    return ImageShape(data.num_classes, data.channels, data.size)


def load_images(settings: DataSettings) -> ImageData:
    """Loads the data set that the settings name.

    Raises:
        InputError: if files are missing or invalid.
    """
    data = read_function(settings) if ':' in settings.name else _LOADERS[settings.name](settings)
    # A network trained with the random resized crop is tested with ImageNet's margin.
    resize = with_margin(data.size) if settings.augment == 'imagenet' else data.resize
    fitted = () if data.uniform else ('pictures letterboxed' if settings.fit == 'letterbox' else 'pictures cropped',)
    data = replace(data, fit=settings.fit, resize=resize, facts=(*data.facts, *fitted))
    if settings.cache and settings.augment != 'imagenet' and isinstance(data.train, Pictures) and isinstance(data.test, Pictures):
        return stored(data)
    return data


def _digits(settings: DataSettings) -> ImageData:
    """Loads scikit-learn's 1,797 digits (UCI, Alpaydin & Kaynak 1998): 8×8, 17 grey levels; a stratified fifth is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    try:
        train, test = train_test_split(
            np.arange(len(images)), test_size=settings.test_portion, random_state=settings.split_seed, stratify=digits.target
        )
    except ValueError as error:
        raise InputError(f'data.test_portion = {settings.test_portion} cannot split the digits: {error}') from None
    return from_arrays((images[train], digits.target[train]), (images[test], digits.target[test]), 'digits', settings)


def _npz(settings: DataSettings) -> ImageData:
    path = Path(settings.path or '')
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, 'files'):
                raise InputError(f'{path} is a single array; an image .npz holds {", ".join(NPZ_KEYS)}')
            arrays = {key: None if unused(key) else file[key] for key in file.files}
    except FileNotFoundError:
        raise InputError(f'no file {path}: set data.path to an .npz with {", ".join(NPZ_KEYS)}') from None
    except InputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many types for a file that is no archive, is damaged or has pickled objects
        raise InputError(f'{path} is not a readable .npz of plain arrays ({type(error).__name__})') from None
    return from_mapping(arrays, str(path), settings)


def _torchvision(make: Callable[[str, bool], Any], name: str, hint: str) -> Callable[[DataSettings], ImageData]:
    def load(settings: DataSettings) -> ImageData:
        root = settings.path or 'data'
        try:
            parts = [make(root, train) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            raise InputError(f'{name} is not complete under {Path(root).resolve()} ({error}); {hint}') from None
        arrays = [(np.asarray(part.data), np.asarray(part.labels if hasattr(part, 'labels') else part.targets)) for part in parts]
        classes = tuple(map(str, getattr(parts[0], 'classes', ())))
        return from_arrays(arrays[0], arrays[1], name, settings, classes=classes)

    return load


def _hint(call: str) -> str:
    return f'download it once with python -c "import torchvision; torchvision.datasets.{call}" and set data.path to that folder'


_FASHION_HINT = _hint("FashionMNIST('data', download=True)") + ', or put its four .gz files into one folder'
_FASHION = _torchvision(lambda root, train: datasets.FashionMNIST(root, train=train), 'fashion-mnist', _FASHION_HINT)


def _fashion_mnist(settings: DataSettings) -> ImageData:
    """Loads Fashion-MNIST from torchvision's folders, or from its four downloaded files, compressed or not."""
    root = Path(settings.path or 'data')
    for folder in (root, root / 'FashionMNIST' / 'raw', root / 'raw'):
        files = [folder / f'{part}-{kind}-ubyte' for part in ('train', 't10k') for kind in ('images-idx3', 'labels-idx1')]
        found = [next((file for file in (path, path.with_name(path.name + '.gz')) if file.is_file()), None) for path in files]
        if all(found):
            arrays = [_idx(file) for file in found if file is not None]
            classes = tuple(datasets.FashionMNIST.classes)
            return from_arrays((arrays[0], arrays[1]), (arrays[2], arrays[3]), 'fashion-mnist', settings, classes=classes)
    return _FASHION(settings)


def _idx(path: Path) -> np.ndarray:
    """Reads a file of bytes in MNIST's format: 0, 0, type 8, number of dimensions, the dimensions (big-endian), the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
        if content[:3] != b'\0\0\x08':
            raise ValueError('it is not an idx file of bytes')
        shape = np.frombuffer(content, '>u4', content[3], 4).astype(int)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
    except Exception as error:  # gzip, zlib and numpy raise several types for a damaged or truncated file
        raise InputError(f'{path} is damaged ({error}); {_FASHION_HINT}') from None


LISTINGS: Mapping[str, Callable[[DataSettings], Listed]] = MappingProxyType(
    {'folder': list_folder, 'imagenet': list_folder, 'csv': list_csv, 'hf': list_hf}
)
"""Name of a data set of pictures → function that lists them."""


def trained_on(settings: DataSettings, paths: Iterable[str]) -> int:
    """Counts the files that are among the training images of a data set, or among those of which a training holds out a test part.

    Args:
        settings: the data set.
        paths: files to look for.

    Returns:
        Their number; 0 for a data set that is not made of files, or is not on this machine.
    """
    try:
        listed = LISTINGS[settings.name](settings) if settings.name in ('folder', 'imagenet', 'csv') else None
    except InputError:
        return 0
    if listed is None:
        return 0
    known = {os.path.realpath(str(listed.train.path(index))) for index in range(len(listed.train.labels))}
    return sum(os.path.realpath(path) in known for path in paths)


_LOADERS: Mapping[str, Callable[[DataSettings], ImageData]] = {
    'digits': _digits,
    'npz': _npz,
    'csv': lambda settings: build(list_csv(settings), settings),
    'folder': lambda settings: build(list_folder(settings), settings),
    'imagenet': lambda settings: build(list_folder(settings), settings),
    'hf': read_hf,
    'cifar10': _torchvision(lambda root, train: datasets.CIFAR10(root, train=train), 'cifar10', _hint("CIFAR10('data', download=True)")),
    'cifar100': _torchvision(
        lambda root, train: datasets.CIFAR100(root, train=train), 'cifar100', _hint("CIFAR100('data', download=True)")
    ),
    'svhn': _torchvision(
        lambda root, train: datasets.SVHN(root, split='train' if train else 'test'),
        'svhn',
        _hint("SVHN('data', s, download=True)") + " (for s = 'train' and 'test')",
    ),
    'fashion-mnist': _fashion_mnist,
}
