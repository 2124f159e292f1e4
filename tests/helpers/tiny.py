"""A recipe that runs in seconds, for tests of everything around the training."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np

from nni_darts.recipes import Recipe

EVOLUTION = {'cells': 4, 'population': 2, 'sample': 2}


def write_images(path: Path, train: int = 96, test: int = 40) -> Path:
    """Writes some of scikit-learn's digits as an .npz."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    parts = {'train': slice(0, train), 'test': slice(train, train + test)}
    arrays = {f'{name}_images': images[part] for name, part in parts.items()}
    np.savez(path, **arrays, **{f'{name}_labels': digits.target[part] for name, part in parts.items()})
    return path


def overrides(images: Path) -> dict[str, object]:
    """Returns changes to the digits recipe."""
    return {
        'data.name': 'npz',
        'data.path': str(images),
        'data.augment': 'none',
        'space.channels': 2,
        'space.nodes': 2,
        'search.epochs': 2,
        'search.batch_size': 16,
        'search.random_samples': 2,
        'search.settings': {'evolution': EVOLUTION},
        'retrain.channels': 4,
        'retrain.cells': 3,
        'retrain.epochs': 2,
        'retrain.batch_size': 16,
        'select.epochs': 1,
    }


SMALL = {
    'search.settings.enas': {'samples': 4, 'finalists': 2},
    'search.settings.random-ws': {'samples': 4, 'finalists': 2},
    'search.settings.p-darts': {'cells': [3, 3, 4]},
    'search.settings.proxy': {'draw': 6, 'batch_size': 16},
}
"""Settings of strategies that would otherwise take longer than the others."""


@functools.cache
def recipe(images: Path) -> Recipe:
    """Returns the tiny recipe."""
    return Recipe.load('digits', overrides(images))


def write_text(folder: Path, train: int = 400, valid: int = 90, test: int = 80) -> Path:
    """Writes sentences of nine words in which each word depends on the preceding one."""
    rng = random.Random(0)
    for name, count in (('train', train), ('valid', valid), ('test', test)):
        words, word = [], 0
        for _ in range(count):
            word = (2 * word + rng.randrange(3)) % 9
            words.append(f'w{word}')
        lines = [' '.join(words[start : start + 8]) for start in range(0, count, 8)]
        (folder / f'tiny.{name}.txt').write_text('\n'.join(lines) + '\n')
    return folder


def text_overrides(folder: Path) -> dict[str, object]:
    """Returns changes to the pydoc recipe."""
    return {
        'data': {'name': 'text', 'path': str(folder)},
        'space.hidden': 6,
        'space.nodes': 2,
        'search.epochs': 2,
        'search.batch_size': 4,
        'search.evaluation_batch_size': 3,
        'search.bptt': 6,
        'search.learning_rate': 1.0,
        'search.random_samples': 2,
        'search.settings.evolution': EVOLUTION,
        'retrain.hidden': 8,
        'retrain.epochs': 3,
        'retrain.batch_size': 4,
        'retrain.evaluation_batch_size': 3,
        'retrain.bptt': 6,
        'retrain.learning_rate': 1.0,
        'retrain.averaging': 1,
        'select.epochs': 1,
    }


@functools.cache
def text_recipe(folder: Path) -> Recipe:
    """Returns the tiny recipe of a language model."""
    return Recipe.load('pydoc', text_overrides(folder))
