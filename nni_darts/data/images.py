"""Image data sets by name, as one kind of object. Nothing is downloaded: missing data is one sentence that says what to do."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import datasets

from nni_darts.errors import InputError
from nni_darts.recipe import DataSettings

__all__ = ['ArrayImages', 'ImageData', 'ImageShape', 'image_shape', 'load_images']

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIZE = 224
TEST_FOLDERS = ('test', 'val', 'valid', 'validation')
NPZ_KEYS = ('train_images', 'train_labels', 'test_images', 'test_labels')


class ArrayImages(Dataset):
    """Images in memory: uint8 (N, C, H, W) and labels (N,). Yields ((C, H, W) uint8, label)."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True)
class ImageData:
    """A data set to learn from.

    Attributes:
        train, test: map-style data sets of (uint8 image tensor (C, H, W) or PIL image, label).
        num_classes: number of classes; labels are 0 … num_classes − 1.
        channels: of the images.
        size: height and width that the network will see.
        mean, std: of each channel over the training images, on the scale 0 … 1.
        uniform: whether all images already have that size.
    """

    train: Dataset
    test: Dataset
    num_classes: int
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    uniform: bool = True


@dataclass(frozen=True)
class ImageShape:
    """What a network must know of a data set: classes, channels, (height, width)."""

    num_classes: int
    channels: int
    size: tuple[int, int]


_SHAPES = {
    'digits': ImageShape(10, 1, (8, 8)),
    'cifar10': ImageShape(10, 3, (32, 32)),
    'cifar100': ImageShape(100, 3, (32, 32)),
    'svhn': ImageShape(10, 3, (32, 32)),
    'fashion-mnist': ImageShape(10, 1, (28, 28)),
}


def image_shape(settings: DataSettings) -> ImageShape:
    """The shape of a data set, without its files where the name says enough. Raises InputError as :func:`load_images`."""
    if settings.name in _SHAPES:
        return _SHAPES[settings.name]
    if settings.name == 'imagenet':
        return ImageShape(1000, 3, (settings.image_size or IMAGENET_SIZE,) * 2)
    data = load_images(settings)
    return ImageShape(data.num_classes, data.channels, data.size)


def load_images(settings: DataSettings) -> ImageData:
    """Loads the data set that the settings name.

    Raises:
        InputError: if files are missing or are not what they should be.
    """
    if ':' in settings.name:
        return _from_function(settings)
    return _LOADERS[settings.name](settings)


# in memory ------------------------------------------------------------------------------------------------------------------------


def _from_arrays(train: tuple[Any, Any], test: tuple[Any, Any], source: str) -> ImageData:
    train_set, test_set = (_array_images(*part, f'{source}, {name}') for part, name in ((train, 'train'), (test, 'test')))
    if train_set.images.shape[1:] != test_set.images.shape[1:]:
        raise InputError(
            f'{source}: training images are {tuple(train_set.images.shape[1:])}, test images {tuple(test_set.images.shape[1:])}'
        )
    num_classes = int(train_set.labels.max()) + 1
    absent = (torch.bincount(train_set.labels, minlength=num_classes) == 0).nonzero().flatten().tolist()
    if absent:
        raise InputError(f'{source}: labels must be 0, 1, 2, … without gaps; no training image has label {absent[0]}')
    if num_classes < 2:
        raise InputError(f'{source}: at least two classes are needed, the training labels are all 0')
    if int(test_set.labels.max()) >= num_classes:
        raise InputError(f'{source}: the test labels go up to {int(test_set.labels.max())}, the training labels to {num_classes - 1}')
    mean, std = _statistics(train_set.images)
    channels, height, width = train_set.images.shape[1:]
    return ImageData(train_set, test_set, num_classes, channels, (height, width), mean, std)


def _array_images(images: Any, labels: Any, source: str) -> ArrayImages:
    """Brings arrays to uint8 (N, C, H, W); accepts (N, H, W), (N, H, W, C) and (N, C, H, W)."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise InputError(f'{source}: images must be uint8 (0 to 255), not {images.dtype}')
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and _channels_last(images.shape):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise InputError(f'{source}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W), not {images.shape}')
    if not images.size:
        raise InputError(f'{source}: there are no images')
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f'{source}: labels must be {len(images)} whole numbers, not {labels.dtype} of shape {labels.shape}')
    if labels.min() < 0:
        raise InputError(f'{source}: labels must be 0 or more, the smallest is {labels.min()}')
    return ArrayImages(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64)))


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether (N, a, b, c) is (N, H, W, C): c is a usual number of channels and a is not, or else the smaller of the two."""
    usual = (1, 3, 4)
    if (shape[1] in usual) != (shape[3] in usual):
        return shape[3] in usual
    return shape[3] < shape[1]


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale 0 … 1, exactly, without a float copy of the images."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.transpose(0, 1):
        counts = torch.bincount(channel.flatten().int(), minlength=256).double()
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        means.append(float(mean))
        deviations.append(max(float(variance.sqrt()), 1e-6))  # a constant channel is left as it is
    return tuple(means), tuple(deviations)


def _digits(settings: DataSettings) -> ImageData:
    """The 1,797 digits of scikit-learn (UCI, Alpaydin & Kaynak 1998): 8×8, 17 grey levels; a stratified fifth is the test set."""
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
    return _from_arrays((images[train], digits.target[train]), (images[test], digits.target[test]), 'digits')


def _npz(settings: DataSettings) -> ImageData:
    path = Path(settings.path or '')
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in NPZ_KEYS if key not in file]
            if missing:
                raise InputError(f'{path} lacks {", ".join(missing)}; an image .npz holds {", ".join(NPZ_KEYS)}')
            arrays = [file[key] for key in NPZ_KEYS]
    except FileNotFoundError:
        raise InputError(f'no file {path}: set data.path to an .npz with {", ".join(NPZ_KEYS)}') from None
    except InputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib have a dozen kinds for what is no archive, a damaged one or pickled objects
        raise InputError(f'{path} is not a readable .npz of plain arrays ({type(error).__name__})') from None
    return _from_arrays((arrays[0], arrays[1]), (arrays[2], arrays[3]), str(path))


def _torchvision(make: Callable[[str, bool], Any], name: str, hint: str) -> Callable[[DataSettings], ImageData]:
    def load(settings: DataSettings) -> ImageData:
        root = settings.path or 'data'
        try:
            parts = [make(root, train) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            raise InputError(f'{name} is not complete under {Path(root).resolve()} ({error}); {hint}') from None
        arrays = [(np.asarray(part.data), np.asarray(part.labels if hasattr(part, 'labels') else part.targets)) for part in parts]
        return _from_arrays(arrays[0], arrays[1], name)

    return load


def _hint(call: str) -> str:
    return f'download it once with python -c "import torchvision; torchvision.datasets.{call}" and set data.path to that folder'


# files ----------------------------------------------------------------------------------------------------------------------------


def _folder(settings: DataSettings) -> ImageData:
    """A folder with one folder for each class, or with ``train`` and one of ``TEST_FOLDERS`` of such folders."""
    root = Path(settings.path or '')
    if not root.is_dir():
        raise InputError(f'no folder {root}: set data.path to a folder with one folder of images for each class')
    test_root = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if (root / 'train').is_dir() and not test_root and len(_class_folders(root)) > 1:
        raise InputError(f'{root} has a folder train but none called {", ".join(TEST_FOLDERS)}: rename the folder of test images')
    if (root / 'train').is_dir() and not test_root:
        root = root / 'train'
    if test_root:
        train, test = _image_folder(root / 'train'), _image_folder(test_root)
        if train.classes != test.classes:
            different = sorted(set(train.classes) ^ set(test.classes))
            raise InputError(f'{root}: training and test folders have different classes: {", ".join(different[:5])}')
        num_classes = len(train.classes)
        parts: tuple[Dataset, Dataset] = (train, test)
    else:
        everything = _image_folder(root)
        held_out = max(1, round(settings.test_portion * len(everything)))
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(settings.split_seed)).tolist()
        num_classes = len(everything.classes)
        parts = (Subset(everything, order[held_out:]), Subset(everything, order[:held_out]))
    if num_classes < 2:
        raise InputError(f'{root}: at least two class folders are needed, found {num_classes}')
    size = (settings.image_size or IMAGENET_SIZE,) * 2
    return ImageData(*parts, num_classes, 3, size, IMAGENET_MEAN, IMAGENET_STD, uniform=False)


def _class_folders(path: Path) -> list[str]:
    """Folders that are not hidden, such as .ipynb_checkpoints, in alphabetical order."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith('.'))


class _Images(datasets.ImageFolder):
    """torchvision's, without hidden folders."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        names = _class_folders(Path(directory))
        if not names:
            raise FileNotFoundError(f'{directory} has no folders')
        return names, {name: index for index, name in enumerate(names)}


def _open_image(path: str) -> Image.Image:
    """An RGB image; 16-bit grey levels are brought to 8 bits instead of being cut off.

    Raises:
        InputError: for a file that is no image, or one of another depth.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith('I;16'):
                return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert('RGB')
            if image.mode in ('I', 'F'):
                raise InputError(f'{path} has {image.mode} pixels of 32 bits; save it with 8 bits a channel')
            return image.convert('RGB')
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path} is not a readable image ({error})') from None


def _image_folder(path: Path) -> datasets.ImageFolder:
    try:
        images = _Images(str(path), loader=_open_image)
    except (FileNotFoundError, OSError) as error:
        raise InputError(f'{path} is not a folder of class folders with images: {str(error).splitlines()[0]}') from None
    _open_image(images.samples[0][0])
    return images


def _from_function(settings: DataSettings) -> ImageData:
    """The user's ``module:function``: called without arguments, or with ``data.path`` where it is set.

    It returns a mapping with the arrays of an ``.npz``, or an :class:`ImageData`.
    """
    module_name, _, function_name = settings.name.partition(':')
    if '' not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a command line tool does not look into the current folder by itself
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition('.')[0]):
            raise InputError(f'data set {settings.name!r}: importing {module_name} failed: {error}') from None
        raise InputError(f'no module {module_name!r} for data set {settings.name!r} in {Path.cwd()} or on PYTHONPATH') from None
    except SyntaxError as error:
        raise InputError(f'data set {settings.name!r}: {error}') from None
    except AttributeError:
        raise InputError(f'module {module_name!r} has no function {function_name!r} (data set {settings.name!r})') from None
    try:
        data = function(settings.path) if settings.path else function()
    except InputError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(f'data set {settings.name} failed: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})') from None
    if isinstance(data, ImageData):
        return data
    if not isinstance(data, Mapping) or any(key not in data for key in NPZ_KEYS):
        raise InputError(
            f'{settings.name} must return a mapping with {", ".join(NPZ_KEYS)}, or an ImageData; it returned {type(data).__name__}'
        )
    return _from_arrays((data['train_images'], data['train_labels']), (data['test_images'], data['test_labels']), settings.name)


_LOADERS: Mapping[str, Callable[[DataSettings], ImageData]] = {
    'digits': _digits,
    'npz': _npz,
    'folder': _folder,
    'imagenet': _folder,
    'cifar10': _torchvision(lambda root, train: datasets.CIFAR10(root, train=train), 'cifar10', _hint("CIFAR10('data', download=True)")),
    'cifar100': _torchvision(
        lambda root, train: datasets.CIFAR100(root, train=train), 'cifar100', _hint("CIFAR100('data', download=True)")
    ),
    'svhn': _torchvision(
        lambda root, train: datasets.SVHN(root, split='train' if train else 'test'),
        'svhn',
        _hint("SVHN('data', s, download=True)") + " (for s = 'train' and 'test')",
    ),
    'fashion-mnist': _torchvision(
        lambda root, train: datasets.FashionMNIST(root, train=train), 'fashion-mnist', _hint("FashionMNIST('data', download=True)")
    ),
}
