"""Transforms of pictures to tensors: resizing, augmentation, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from nni_darts.data.base import Description, ImageData
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['BringToSize', 'Cutout', 'evaluation_transform', 'pixels', 'to_size', 'training_transform', 'with_margin']


class BringToSize(nn.Module):
    """Scales a picture of any size and either crops its middle or pads it.

    ``crop`` scales the picture so that it covers ``resize``, and cuts ``size`` out of the middle. ``letterbox`` scales it so that it fits
    into ``size``, and pads it on both sides; nothing is cut off and nothing is distorted.

    Args:
        size: (height, width) of the result.
        resize: (height, width) that the picture covers before the crop; by default ``size``.
        fit: ``crop`` or ``letterbox``.
        fill: padding value of each channel, from 0 to 255.

    Example:
        ``BringToSize((32, 32), fit='letterbox', fill=(124, 116, 104))(Image.open('photo.jpg'))``
    """

    def __init__(
        self,
        size: tuple[int, int],
        resize: tuple[int, int] | None = None,
        fit: Literal['crop', 'letterbox'] = 'crop',
        fill: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        self.size: tuple[int, int] = (size[0], size[1])
        self.resize = self.size if resize is None else (resize[0], resize[1])
        self.fit = fit
        self.fill = list(fill)

    def forward(self, image: Any) -> Any:
        """Returns a PIL image, or a tensor (C, H, W), with height and width ``size``."""
        height, width = functional.get_size(image)
        before = (height, width)
        if before == self.size == self.resize:
            return image
        if self.fit == 'letterbox':
            inner = within(before, self.size)
            top, left = ((outer - side) // 2 for outer, side in zip(self.size, inner))
            bottom, right = self.size[0] - inner[0] - top, self.size[1] - inner[1] - left
            return functional.pad(functional.resize(image, list(inner)), [left, top, right, bottom], fill=self.fill)
        return functional.center_crop(functional.resize(image, list(covering(before, self.resize))), list(self.size))


def covering(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Returns the smallest (height, width) with the aspect ratio of ``size`` that covers a box."""
    height, width = size
    if box[0] * width >= box[1] * height:
        return box[0], max(box[1], int(box[0] * width / height))
    return max(box[0], int(box[1] * height / width)), box[1]


def within(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest (height, width) with the aspect ratio of ``size`` that fits into a box."""
    height, width = size
    if box[0] * width <= box[1] * height:
        return box[0], min(box[1], max(1, round(box[0] * width / height)))
    return min(box[0], max(1, round(box[1] * height / width))), box[1]


def with_margin(size: tuple[int, int]) -> tuple[int, int]:
    """Returns ImageNet's usual size before the centre crop, 8/7 of the result: 256 for 224."""
    return round(size[0] * 8 / 7), round(size[1] * 8 / 7)


class Cutout(nn.Module):
    """Sets a square at a random position to zero (DeVries & Taylor, 2017). At the border, only a part of the square is in the image."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, image: Tensor) -> Tensor:
        """Returns (C, H, W) for (C, H, W)."""
        height, width = image.shape[-2:]
        row, column = (int(torch.randint(side, ())) for side in (height, width))
        half = self.length // 2
        top, left = max(row - half, 0), max(column - half, 0)
        bottom, right = max(row - half + self.length, 0), max(column - half + self.length, 0)
        image = image.clone()
        image[..., top:bottom, left:right] = 0
        return image


def _normalise(mean: Sequence[float], std: Sequence[float]) -> list[nn.Module]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std), v2.ToPureTensor()]


def _fill(mean: Sequence[float]) -> list[int]:
    """Returns the padding of a letterbox, which is the mean colour: normalisation turns it into zero, with which convolutions pad, too."""
    return [round(255 * value) for value in mean]


def training_transform(data: ImageData, settings: DataSettings, cutout: int = 0) -> v2.Transform:
    """Returns the transform for training images: augmentation by ``settings.augment``, normalisation, and cutout.

    Args:
        data: the data set.
        settings: settings of the augmentation.
        cutout: side of the cutout square in pixels; 0 for none.

    Raises:
        InputError: if cutout or padding is larger than the images.
    """
    if cutout > min(data.size):
        raise InputError(f'cutout {cutout} is larger than the images, {data.size[0]}×{data.size[1]}')
    if settings.augment in ('crop', 'crop-flip') and settings.pad > min(data.size):
        raise InputError(f'data.pad {settings.pad} is larger than the images, {data.size[0]}×{data.size[1]}')
    steps: list[nn.Module] = []
    if settings.augment == 'imagenet':
        steps += [v2.RandomResizedCrop(data.size), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.2)]
    else:
        steps.append(BringToSize(data.size, None, data.fit, _fill(data.mean)))
        if settings.augment in ('crop', 'crop-flip'):
            steps.append(v2.RandomCrop(data.size, padding=settings.pad))
        if settings.augment == 'crop-flip':
            steps.append(v2.RandomHorizontalFlip())
    steps += _normalise(data.mean, data.std)
    if cutout:
        steps.append(Cutout(cutout))
    return v2.Compose(steps)


def evaluation_transform(description: Description) -> v2.Transform:
    """Returns the transform for images to classify, which resizes and normalises: PIL image or uint8 (C, H, W) → float (C, H, W)."""
    return v2.Compose([to_size(description), *_normalise(description.mean, description.std)])


def pixels(image: Image.Image | Tensor, description: Description) -> Tensor:
    """Returns a picture as the network receives it before normalisation.

    ``pixels(open_image(path), description)`` is bit-identical to the training, validation and test images. Exported networks, which
    normalise their input, take it as fractions of 255; for other networks, :func:`evaluation_transform` adds the normalisation.

    Args:
        image: a picture of any size from :func:`nni_darts.data.scan.open_image`, or uint8 (C, H, W) with the network's channels.
        description: description of the data on which the network was trained.

    Returns:
        uint8 (C, H, W).

    Raises:
        InputError: if the network takes neither grey nor colour images, or the image has other channels.
    """
    if isinstance(image, Tensor):
        if image.shape[0] != description.channels:
            raise InputError(f'the image has {image.shape[0]} channels; this network was trained on images of {description.channels}')
        return to_size(description)(image)
    modes = {1: 'L', 3: 'RGB'}
    if description.channels not in modes:
        raise InputError(f'a picture has 1 or 3 channels; this network was trained on images of {description.channels}')
    if image.mode != modes[description.channels]:
        image = image.convert(modes[description.channels])
    return functional.pil_to_tensor(to_size(description)(image))


def to_size(description: Description) -> BringToSize:
    """Returns the step that brings a picture to the network's size."""
    return BringToSize(description.size, description.resize, description.fit, _fill(description.mean))
