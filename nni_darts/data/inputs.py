"""Reads the images that users give to a network (files, folders, pictures, arrays), and labelled images for its evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from nni_darts.data.arrays import image_bytes
from nni_darts.data.base import Description
from nni_darts.data.scan import FORMATS, images_below, open_image, uniform_image
from nni_darts.data.transforms import pixels
from nni_darts.errors import InputError

__all__ = ['Source', 'image_sources', 'read_pixels']

Source = tuple[str, Any]
"""Name of an image, and the image: a path, a PIL image, or uint8 (C, H, W)."""

_COLOURS = (1, 3, 4)
"""Numbers of channels that a picture can have: grey, RGB, RGB with transparency."""


def image_sources(images: Any, description: Description) -> list[Source]:
    """Lists single images in order, without opening files.

    Args:
        images: the path of an image or of a folder (all images below it), a PIL image, an array or tensor of one image (H, W),
            (H, W, C) or (C, H, W), or of a batch (N, H, W, C), (N, C, H, W) or, for grey images, (N, H, W), in uint8 or with values from
            0 to 1; or a sequence of any of these.
        description: description of the images that the network was trained on, which tells one image from a batch of grey images.

    Raises:
        InputError: for a path that does not exist, a folder without images, or a value that is not an image.
    """
    if isinstance(images, (str, os.PathLike)):
        return [(path, path) for path in _paths(Path(images))]
    if isinstance(images, Image.Image):
        return [('0', images)]
    if isinstance(images, (np.ndarray, Tensor)):
        return [(str(index), image) for index, image in enumerate(_arrays(images, description))]
    if isinstance(images, Iterable) and not isinstance(images, (bytes, dict)):
        found: list[Source] = []
        for image in images:
            for name, single in image_sources(image, description):
                found.append((name if isinstance(single, str) else str(len(found)), single))
        return found
    raise InputError(f'an image is a path, a PIL image, an array or a tensor, not {type(images).__name__}')


def read_pixels(image: Any, name: str, description: Description) -> Tensor:
    """Opens an image and brings it to the network's input before normalisation: float32 (C, H, W) with values from 0 to 1.

    Args:
        image: an image from :func:`image_sources`.
        name: name of the image, for messages.
        description: description of the images that the network was trained on.

    Raises:
        InputError: for an image that cannot be read, or whose channels the network does not accept.
    """
    if isinstance(image, str):
        image = open_image(image)
    elif isinstance(image, Image.Image):
        image = uniform_image(image, name)
    elif image.shape[0] != description.channels or description.channels in (1, 3):
        image = _picture(image, name)
    return functional.to_dtype(pixels(image, description), torch.float32, scale=True)


def _paths(path: Path) -> list[str]:
    if not path.exists():
        raise InputError(f'there is no image or folder {path}')
    if not path.is_dir():
        return [str(path)]
    files, _ = images_below(path)
    if not files:
        raise InputError(f'{path} holds no images; images end in {", ".join(FORMATS)}')
    return files


def _arrays(images: np.ndarray | Tensor, description: Description) -> Sequence[Tensor]:
    """Returns images as uint8 (C, H, W)."""
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    if values.ndim == 2:
        values = values[None, None]
    elif values.ndim == 3 and not (description.channels == 1 and values.shape[1:] == description.size):
        channels = (*_COLOURS, description.channels)
        if values.shape[0] in channels and values.shape[2] not in channels:
            values = values[None]
        elif values.shape[2] in channels:
            values = values.transpose(2, 0, 1)[None]
    return list(torch.from_numpy(image_bytes(values, 'the images')))


def _picture(image: Tensor, name: str) -> Image.Image:
    """Returns a uint8 (C, H, W) tensor as a picture, so that it is treated like one from a file."""
    if image.shape[0] not in _COLOURS:
        raise InputError(f'{name}: an image has 1, 3 or 4 channels, not {image.shape[0]}')
    array = image.permute(1, 2, 0).numpy()
    return uniform_image(Image.fromarray(array[..., 0] if image.shape[0] == 1 else np.ascontiguousarray(array)), name)
