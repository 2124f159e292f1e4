"""Augmentation and normalisation of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from nni_darts.data.base import ImageData
from nni_darts.errors import InputError
from nni_darts.recipe import DataSettings

__all__ = ['Cutout', 'evaluation_transform', 'training_transform']


class Cutout(nn.Module):
    """Sets a square at a random place to zero (DeVries & Taylor, 2017); at the border only a part of it lies inside the image."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, image: Tensor) -> Tensor:
        """(C, H, W) → (C, H, W)"""
        height, width = image.shape[-2:]
        row, column = (int(torch.randint(side, ())) for side in (height, width))
        half = self.length // 2
        top, left = max(row - half, 0), max(column - half, 0)
        bottom, right = max(row - half + self.length, 0), max(column - half + self.length, 0)
        image = image.clone()
        image[..., top:bottom, left:right] = 0
        return image


def _normalise(data: ImageData) -> list[nn.Module]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std), v2.ToPureTensor()]


def training_transform(data: ImageData, settings: DataSettings, cutout: int = 0) -> v2.Transform:
    """What training images go through: augmentation as ``settings.augment`` says, normalisation, cutout of that length (0: none).

    Raises:
        InputError: for cutout or padding larger than the images.
    """
    if cutout > min(data.size):
        raise InputError(f'cutout {cutout} is larger than the images, {data.size[0]}×{data.size[1]}')
    if settings.augment in ('crop', 'crop-flip') and settings.pad > min(data.size):
        raise InputError(f'data.pad {settings.pad} is larger than the images, {data.size[0]}×{data.size[1]}')
    steps: list[nn.Module] = []
    if settings.augment == 'imagenet':
        steps += [v2.RandomResizedCrop(data.size), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.2)]
    else:
        steps += [] if data.uniform else [v2.Resize(data.size[0]), v2.CenterCrop(data.size)]
        if settings.augment in ('crop', 'crop-flip'):
            steps.append(v2.RandomCrop(data.size, padding=settings.pad))
        if settings.augment == 'crop-flip':
            steps.append(v2.RandomHorizontalFlip())
    steps += _normalise(data)
    if cutout:
        steps.append(Cutout(cutout))
    return v2.Compose(steps)


def evaluation_transform(data: ImageData, settings: DataSettings) -> v2.Transform:
    """What validation and test images go through: brought to size (with ImageNet's usual margin of 8/7), normalised."""
    steps: list[nn.Module] = []
    if settings.augment == 'imagenet':
        steps += [v2.Resize(round(data.size[0] * 8 / 7)), v2.CenterCrop(data.size)]
    elif not data.uniform:
        steps += [v2.Resize(data.size[0]), v2.CenterCrop(data.size)]
    return v2.Compose(steps + _normalise(data))
