"""The choices that ``fit`` makes for a data set: image size, stem, sizes of networks, batch size, learning rates. Imports no torch.

The rules are those of this package's hand-written recipes. The length of the search and of the training is decided later, from
measured steps (:mod:`nni_darts.runs.fit`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

__all__ = [
    'SIZES',
    'Facts',
    'Size',
    'cheaper',
    'epochs_for',
    'image_sides',
    'proposed_recipe',
    'search_portion',
    'sensible',
]

SIDES = (32, 48, 64, 96, 128, 160, 224)
"""Sides of square images, in pixels, to which photos are scaled."""

LARGEST_CIFAR_SIDE = 64
"""The largest side with which the stem keeps the resolution of the images; for larger images it divides it by eight, as for ImageNet."""

STEPS = (200, 4000)
"""The fewest steps of the weights with which a search is worth its time, and the most that it takes if there is enough time."""

LEAST_SEARCH_EPOCHS, MOST_SEARCH_EPOCHS = 10, 50
LEAST_TRAINING_EPOCHS, MOST_TRAINING_EPOCHS = 3, 200
LEAST_TRAINING_STEPS = 300

REACH = 3.0
"""The distance that α should be able to move, which is the number of its steps times its learning rate. At 3, the best of eight operations
can reach a probability of 0.7 while the other seven α stay; CIFAR-10's published search (50 epochs of 390 steps at 3e-4) allows 5.9."""

ALPHA_RATES = (3e-4, 1e-2)
"""Learning rates of α: the published one, and the largest one tried (recipe photos-small)."""


@dataclass(frozen=True)
class Size:
    """The sizes of a supernet and of the final network.

    Attributes:
        name: name for messages.
        space: ``channels``, ``cells`` and ``nodes`` of the supernet.
        network: ``channels`` and ``cells`` of the final network.
    """

    name: str
    space: tuple[int, int, int]
    network: tuple[int, int]


SIZES = (Size('medium', (16, 8, 4), (20, 11)), Size('small', (8, 5, 3), (12, 8)), Size('tiny', (8, 3, 2), (8, 5)))
"""The sizes, from the most expensive to the cheapest."""


@dataclass(frozen=True)
class Facts:
    """The facts about a data set that determine how it is searched.

    Attributes:
        name: ``data.name`` of the recipe.
        path: ``data.path`` of the recipe.
        images: number of training images.
        classes: number of classes.
        side: median of the shorter sides of the images, in pixels.
        scalable: whether images are scaled to ``data.image_size``; arrays already have a single size.
        channels: number of channels of an image, 1 or 3.

    Example:
        ``Facts('folder', 'pets', images=400, classes=4, side=480, scalable=True, channels=3)``
    """

    name: str
    path: str
    images: int
    classes: int
    side: int
    scalable: bool
    channels: int


def image_sides(facts: Facts, largest: int = 128) -> Sequence[int | None]:
    """Returns the sides to try, from the largest; None if the images already have a single size.

    Args:
        facts: facts about the data.
        largest: upper limit of the side, in pixels.
    """
    if not facts.scalable:
        return (None,)
    return [side for side in reversed(SIDES) if side <= min(largest, max(facts.side, SIDES[0]))]


def proposed_recipe(facts: Facts, size: Size, side: int | None) -> dict[str, Any]:
    """Returns a recipe as plain data, whose lengths have yet to be decided (:func:`epochs_for`).

    Args:
        facts: facts about the data.
        size: sizes of the networks.
        side: side of the images, in pixels; None if they already have a single size.
    """
    batch = 16 if facts.images < 1000 else 32 if facts.images < 10_000 else 64
    channels, cells, nodes = size.space
    scaled = {} if side is None else {'image_size': side}
    # Digits and letters have another meaning when mirrored, and grey arrays are often digits or letters; photos are not.
    augment = 'crop-flip' if facts.scalable or facts.channels == 3 else 'crop'
    pixels = side or facts.side
    return {
        'name': 'fit',
        'data': {'name': facts.name, 'path': facts.path, **scaled, 'augment': augment, 'pad': max(1, pixels // 8)},
        'space': {
            'channels': channels,
            'cells': cells,
            'nodes': nodes,
            'stem': 'cifar' if pixels <= LARGEST_CIFAR_SIDE else 'imagenet',
        },
        'search': {
            'epochs': LEAST_SEARCH_EPOCHS,
            'batch_size': batch,
            'learning_rate': 0.025,
            'architecture_learning_rate': ALPHA_RATES[0],
            'tuning_epochs': 1,
            'random_samples': 4,
        },
        'retrain': {
            'channels': size.network[0],
            'cells': size.network[1],
            'epochs': LEAST_TRAINING_EPOCHS,
            'batch_size': batch,
            'learning_rate': 0.025 if batch < 64 else 0.05,
            'validation_portion': 0.1,
            'cutout': pixels // 4,
            'label_smoothing': 0.1,
        },
        'select': {'epochs': LEAST_TRAINING_EPOCHS, 'validation_portion': 0.3},
    }


def search_portion(steps: int, images: int, batch_size: int, train_portion: float = 0.5) -> float:
    """Returns the fraction of the training data for a search, so that the affordable steps make at least ``LEAST_SEARCH_EPOCHS`` epochs.

    Args:
        steps: number of steps of the weights that the search can afford.
        images: number of training images.
        batch_size: batch size of the search.
        train_portion: fraction of the images that trains the weights.
    """
    each_epoch = steps / LEAST_SEARCH_EPOCHS
    needed = each_epoch * batch_size / train_portion
    return 1.0 if needed >= images else max(0.01, round(needed / images, 3))


def epochs_for(steps: int, images: int, batch_size: int, bounds: tuple[int, int]) -> int:
    """Returns the number of epochs that come closest to a number of steps, within bounds.

    Args:
        steps: number of steps wanted.
        images: number of images in an epoch.
        batch_size: number of images in a batch.
        bounds: smallest and largest number of epochs.
    """
    low, high = bounds
    return min(high, max(low, round(steps / max(1, math.ceil(images / batch_size)))))


def alpha_rate(steps: int) -> float:
    """Returns the learning rate with which α can move by ``REACH`` in ``steps`` steps, within ``ALPHA_RATES``."""
    low, high = ALPHA_RATES
    return min(high, max(low, float(f'{REACH / max(1, steps):.1g}')))


def sensible(size: Size, facts: Facts) -> bool:
    """Returns whether there are enough images for networks of a size."""
    return facts.images >= 2000 or size is not SIZES[0]


def cheaper(candidates: Sequence[tuple[Size, int | None]], index: int, room: float, tried: Set[int]) -> int:
    """Returns the index of the most expensive candidate that has not been tried and may be cheap enough.

    The cost is assumed to be proportional to the number of pixels, and to fall to a third from one size of network to the next.

    Args:
        candidates: sizes of networks and sides of images, from the most expensive.
        index: index of the candidate that was timed.
        room: available time as a multiple of the least cost of that candidate.
        tried: indices of the candidates that have been timed.
    """
    for other, candidate in enumerate(candidates):
        if other not in tried and _relative_cost(*candidate) <= 0.5 * room * _relative_cost(*candidates[index]):
            return other
    return len(candidates) - 1


def _relative_cost(size: Size, side: int | None) -> float:
    return (side or 1) ** 2 / 3 ** SIZES.index(size)
