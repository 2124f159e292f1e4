"""A recipe that runs in seconds, for tests of what surrounds the training."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from nni_darts.recipe import Recipe


def write_images(path: Path, train: int = 96, test: int = 40) -> Path:
    """Some of scikit-learn's digits as an .npz."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    parts = {'train': slice(0, train), 'test': slice(train, train + test)}
    arrays = {f'{name}_images': images[part] for name, part in parts.items()}
    np.savez(path, **arrays, **{f'{name}_labels': digits.target[part] for name, part in parts.items()})
    return path


def overrides(images: Path) -> dict[str, object]:
    """Changes to the digits recipe."""
    return {
        'data.name': 'npz',
        'data.path': str(images),
        'data.augment': 'none',
        'space.channels': 2,
        'space.nodes': 2,
        'search.epochs': 2,
        'search.batch_size': 16,
        'search.random_samples': 2,
        'retrain.channels': 4,
        'retrain.cells': 3,
        'retrain.epochs': 2,
        'retrain.batch_size': 16,
        'select.epochs': 1,
    }


@functools.cache
def recipe(images: Path) -> Recipe:
    """The tiny recipe."""
    return Recipe.load('digits', overrides(images))
