"""The length of a training and the size of its network within given limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.limits import affordable
from nni_darts.runs.proposal import LEAST_TRAINING_EPOCHS, LEAST_TRAINING_STEPS, MOST_TRAINING_EPOCHS
from nni_darts.runs.tasks import task_of

__all__ = ['longest_training', 'shortest_training', 'with_portion', 'within_parameters']

_PARTS = 1000
"""Fractions of the training images are tried in steps of one thousandth."""


def longest_training(recipe: Recipe, data: Any, seconds: float, cost: Callable[[Recipe], float]) -> Recipe | None:
    """Returns the recipe with the most epochs of the final training that fit into a time, or with fewer images; None if none fits.

    A network needs a few epochs and a few hundred steps before it can be compared with another one. Therefore, if the fewest epochs do
    not fit, they are kept but use fewer images.

    Args:
        recipe: all settings.
        data: as ``task_of(recipe).load(recipe)`` returns it.
        seconds: seconds available for training.
        cost: recipe → seconds.
    """
    shortest = shortest_training(recipe, data)
    whole, fewest = with_portion(recipe, 1.0), shortest.retrain.epochs
    bounds = fewest, max(fewest, MOST_TRAINING_EPOCHS)
    epochs = affordable(seconds, lambda epochs: cost(whole.with_epochs('retrain', epochs)), bounds)
    if epochs is not None:
        return whole.with_epochs('retrain', epochs)
    parts = round(_PARTS * shortest.retrain.portion), _PARTS
    part = affordable(seconds, lambda part: cost(with_portion(shortest, part / _PARTS)), parts)
    return None if part is None else with_portion(shortest, part / _PARTS)


def shortest_training(recipe: Recipe, data: Any) -> Recipe:
    """Returns the recipe with the fewest epochs of the final training on the fewest images. Arguments as for :func:`longest_training`."""
    whole = with_portion(recipe, 1.0)
    batches, _, _ = task_of(whole).batches_of_training(whole, 'retrain', data)
    fewest = max(LEAST_TRAINING_EPOCHS, math.ceil(LEAST_TRAINING_STEPS / batches))
    least = min(_PARTS, math.ceil(_PARTS * LEAST_TRAINING_STEPS / (batches * fewest)))
    return with_portion(whole, least / _PARTS).with_epochs('retrain', fewest)


def within_parameters(recipe: Recipe, genotype: AnyGenotype, most: int, count: Callable[[Recipe], int]) -> Recipe:
    """Returns the recipe with the most channels of the final network that a limit of parameters allows, at most those of the recipe.

    Args:
        recipe: all settings.
        genotype: the cell found.
        most: largest number of parameters.
        count: recipe → number of parameters of the final network of this cell.

    Raises:
        InputError: if even a network with four channels exceeds the limit; the message says how many parameters it has.
    """
    for channels in range(recipe.retrain.channels or 0, 3, -1):
        smaller = recipe.model_copy(update={'retrain': recipe.retrain.model_copy(update={'channels': channels})})
        if count(smaller) <= most:
            return smaller
    raise InputError(f'the smallest network of the found cell has {count(smaller):,} parameters, more than --max-parameters {most:,}.')


def with_portion(recipe: Recipe, portion: float) -> Recipe:
    """Returns the recipe with another fraction of the training images in the final training."""
    return recipe.model_copy(update={'retrain': recipe.retrain.model_copy(update={'portion': portion})})
