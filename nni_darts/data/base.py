"""The types that every reader of images returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nni_darts.errors import InputError

__all__ = ['FITS', 'ArrayImages', 'Description', 'Fit', 'ImageData', 'ImageShape', 'Labelled', 'labels_of']

Fit = Literal['crop', 'letterbox']
FITS: tuple[Fit, ...] = get_args(Fit)
"""Ways to bring a picture to the size that a network expects."""


class Labelled(Dataset[Any]):
    """A map-style data set of images whose labels are known without opening an image."""

    labels: Tensor
    """int64 (N,)"""

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Any, int]:
        raise NotImplementedError

    def path(self, index: int) -> str | None:
        """Returns the file of an image; None if it has no file of its own."""
        return None


class ArrayImages(Labelled):
    """Images in memory: uint8 (N, C, H, W) and labels (N,). Items are ((C, H, W) uint8, label)."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True)
class ImageShape:
    """The properties of a data set that a network must match: number of classes, channels, (height, width)."""

    num_classes: int
    channels: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Description(ImageShape):
    """Everything that a trained network needs to be used without its data.

    Attributes:
        mean, std: mean and standard deviation of each channel over the training images, on the scale from 0 to 1.
        classes: names of the classes in the order of the labels.
        fit, resize: how a picture of another size is brought to ``size``, as in :class:`nni_darts.data.transforms.BringToSize`.

    Example:
        ``Description.from_dict(json.loads(Path('out/retrain/data.json').read_text()))``
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    fit: Fit = 'crop'
    resize: tuple[int, int] | None = None

    @property
    def colour_order(self) -> str | None:
        """``grey`` for one channel, ``RGB`` for three, None for any other number of channels."""
        return {1: 'grey', 3: 'RGB'}.get(self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data that :meth:`from_dict` can read."""
        return {**asdict(self), 'colour_order': self.colour_order}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Builds a description from the result of :meth:`to_dict` in this or an earlier version. Raises InputError for anything else."""
        try:
            size, resize = _sides(values['size']), values.get('resize')
            mean, std = (tuple(float(value) for value in values[name]) for name in ('mean', 'std'))
            classes = tuple(map(str, values['classes']))
            fit, resize = values.get('fit', 'crop'), None if resize is None else _sides(resize)
            found = cls(int(values['num_classes']), int(values['channels']), size, mean, std, classes, fit, resize)
            if fit not in FITS:
                raise ValueError(f'fit is {fit!r}')
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise InputError(f'the description of the data is damaged ({type(error).__name__}: {error})') from None
        if len(classes) != found.num_classes or {len(mean), len(std)} != {found.channels}:
            raise InputError('the description of the data is damaged (its numbers of classes or channels contradict each other)')
        return found


def _sides(value: Any) -> tuple[int, int]:
    height, width = (int(side) for side in value)
    return height, width


@dataclass(frozen=True)
class ImageData:
    """A data set for training and testing.

    Attributes:
        train, test: map-style data sets of (image, label), where an image is uint8 (C, H, W) or a PIL image.
        num_classes: number of classes; labels are 0 … num_classes − 1.
        channels: number of channels of the images.
        size: height and width that the network expects.
        mean, std: mean and standard deviation of each channel over the training images, on the scale from 0 to 1.
        uniform: whether all images already have that size.
        classes: names of the classes in the order of the labels, or the labels themselves if there are no names.
        notes: sentences about what a reader left out or found odd.
        fit, resize: how pictures of other sizes are brought to ``size``, as in :class:`Description`.
        facts: remarks that follow the sizes in the first line of a run.

    Example:
        ``load_images(Recipe.load('digits').data).train[0]``
    """

    train: Dataset[Any]
    test: Dataset[Any]
    num_classes: int
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    uniform: bool = True
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    fit: Fit = 'crop'
    resize: tuple[int, int] | None = None
    facts: tuple[str, ...] = ()

    @property
    def description(self) -> Description:
        """Returns the description to save with a network that was trained on these images."""
        classes = self.classes or tuple(map(str, range(self.num_classes)))
        mean, std = tuple(self.mean), tuple(self.std)
        return Description(self.num_classes, self.channels, self.size, mean, std, classes, self.fit, self.resize)


def labels_of(data: Dataset[Any]) -> Sequence[int] | None:
    """Returns the labels of a data set without opening its images; None if the data set does not have them."""
    labels = getattr(data, 'labels', None)
    return labels.tolist() if isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1 else None
