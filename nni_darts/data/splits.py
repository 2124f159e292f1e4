"""Splits images into two parts, and reports which classes a part lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings

__all__ = ['balanced_weights', 'hold_out', 'largest_share', 'missing_classes', 'split', 'split_in_two', 'stratified_split']


def split(count: int, portion: float, seed: int) -> tuple[list[int], list[int]]:
    """Shuffles 0 … count − 1 with the seed. Returns the first ``portion`` of them, and the remaining ones."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = int(portion * count)
    return order[:cut], order[cut:]


def stratified_split(labels: Sequence[int], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Splits images into a part of ``count`` images and the remaining images; both parts keep the proportions of the classes.

    A class of two or more images is in both parts if there is room for it. Both parts are shuffled.

    Args:
        labels: the class of each image.
        count: size of the first part.
        seed: seed of the shuffling.

    Returns:
        The indices of both parts.
    """
    order = split(len(labels), 1.0, seed)[0]
    by_class: dict[int, list[int]] = {}
    for index in order:
        by_class.setdefault(labels[index], []).append(index)
    members = [by_class[label] for label in sorted(by_class)]
    first = {index for indices, share in zip(members, _shares(list(map(len, members)), count)) for index in indices[:share]}
    return [index for index in order if index in first], [index for index in order if index not in first]


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """Returns how many images of each class go into the first part.

    The numbers are proportional, and the largest remainders are rounded up first. If the sizes of both parts allow it, a class of two or
    more images has at least one image in each part.
    """
    portion = total / max(1, sum(sizes))
    ideal = [portion * size for size in sizes]
    inside = 0 < portion < 1
    low = [min(1, size - 1) if inside else 0 for size in sizes]
    high = [size - 1 if inside and size > 1 else size for size in sizes]
    taken = [min(max(int(value), least), most) for value, least, most in zip(ideal, low, high)]
    while (left := total - sum(taken)) != 0:
        step = 1 if left > 0 else -1
        able = [k for k in range(len(sizes)) if low[k] <= taken[k] + step <= high[k]]
        able = able or [k for k, size in enumerate(sizes) if 0 <= taken[k] + step <= size]  # the requested size comes before the bounds
        taken[max(able, key=lambda k: step * (ideal[k] - taken[k]))] += step
    return taken


def split_in_two(labels: Sequence[int] | None, count: int, portion: float, seed: int, rule: str) -> tuple[list[int], list[int]]:
    """Splits images by a rule of ``DataSettings.split``. The first part has ``portion`` of ``count`` images, rounded down.

    Args:
        labels: the class of each image; None if it is not known, which makes every split random.
        count: number of images.
        portion: size of the first part, from 0 to 1.
        seed: seed of the shuffling.
        rule: ``stratified`` or ``random``.
    """
    if labels is None or rule == 'random':
        return split(count, portion, seed)
    return stratified_split(labels, int(portion * count), seed)


def hold_out(labels: Sequence[int], settings: DataSettings) -> tuple[list[int], list[int]]:
    """Holds out ``data.test_portion`` of the images as test images. Returns the indices of training and test images.

    Raises:
        InputError: if a part would be empty.
    """
    count = len(labels)
    held_out = max(1, round(settings.test_portion * count))
    if held_out >= count:
        raise InputError(f'data.test_portion = {settings.test_portion} leaves none of {count} images to train on')
    # Half an image is added because the split rounds down.
    test, train = split_in_two(labels, count, (held_out + 0.5) / count, settings.split_seed, settings.split)
    return train, test


def missing_classes(labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    """Returns the names of the classes that have no label."""
    present = set(labels)
    return [name for label, name in enumerate(classes) if label not in present]


def largest_share(labels: Sequence[int]) -> float:
    """Returns the fraction of the most frequent class, which is the accuracy of always predicting it."""
    return max(Counter(labels).values()) / len(labels)


def balanced_weights(labels: Sequence[int], num_classes: int) -> list[float]:
    """Returns weights with which all classes count equally in the loss: n / (C · n_c), for n_c of n images in C classes.

    The mean weight of an image is 1, so the scale of the loss does not change. A class without images gets the weight of a class with
    one image.
    """
    counts = Counter(labels)
    return [len(labels) / (num_classes * max(1, counts[label])) for label in range(num_classes)]
