"""The types that every reader of images returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nni_darts.errors import InputError

__all__ = ['ArrayImages', 'Description', 'ImageData', 'ImageShape', 'Labelled', 'labels_of']


class Labelled(Dataset):
    """A map-style data set of images that knows its labels without opening an image."""

    labels: Tensor
    """int64 (N,)"""

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Any, int]:
        raise NotImplementedError


class ArrayImages(Labelled):
    """Images in memory: uint8 (N, C, H, W) and labels (N,). Yields ((C, H, W) uint8, label)."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True)
class ImageShape:
    """The facts about a data set that a network must fit: classes, channels, (height, width)."""

    num_classes: int
    channels: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Description(ImageShape):
    """Everything that a trained network needs to be used without its data.

    Attributes:
        mean, std: of each channel over the training images, on the scale 0 … 1.
        classes: names in the order of the labels.

    Example:
        ``Description.from_dict(json.loads(Path('out/retrain/data.json').read_text()))``
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Raises InputError for anything but what :meth:`to_dict` returned."""
        try:
            height, width = (int(side) for side in values['size'])
            mean, std = (tuple(float(value) for value in values[name]) for name in ('mean', 'std'))
            classes = tuple(map(str, values['classes']))
            found = cls(int(values['num_classes']), int(values['channels']), (height, width), mean, std, classes)
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f'the description of the data is damaged ({type(error).__name__}: {error})') from None
        if len(classes) != found.num_classes or {len(mean), len(std)} != {found.channels}:
            raise InputError('the description of the data is damaged (its classes or channels do not fit each other)')
        return found


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
        classes: names in the order of the labels; the labels themselves where nothing else is known.
        notes: sentences on what a reader left out or found odd.
    """

    train: Dataset
    test: Dataset
    num_classes: int
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    uniform: bool = True
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def description(self) -> Description:
        """The facts to keep beside a network that was trained on these images."""
        classes = self.classes or tuple(map(str, range(self.num_classes)))
        return Description(self.num_classes, self.channels, self.size, tuple(self.mean), tuple(self.std), classes)


def labels_of(data: Dataset) -> Sequence[int] | None:
    """The labels of a data set without opening its images; None where it does not know them."""
    labels = getattr(data, 'labels', None)
    return labels.tolist() if isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1 else None
