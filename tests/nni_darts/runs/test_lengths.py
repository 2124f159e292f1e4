"""The length of the final training that ``fit`` chooses for the time that is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_darts.recipes import Recipe
from nni_darts.runs.lengths import longest_training, shortest_training
from nni_darts.runs.proposal import LEAST_TRAINING_EPOCHS, LEAST_TRAINING_STEPS, MOST_TRAINING_EPOCHS
from nni_darts.runs.tasks import task_of
from tests.helpers.tiny import overrides, write_images


@pytest.mark.parametrize(('images', 'batch'), [(96, 16), (96, 2), (1600, 4)])
def test_a_training_gets_fewer_images_rather_than_too_few_epochs(images: int, batch: int, tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'some.npz', images)), 'retrain.batch_size': batch})
    data = task_of(recipe).load(recipe)

    def steps(changed: Recipe) -> float:
        return changed.retrain.epochs * task_of(changed).batches_of_training(changed, 'retrain', data)[0]

    whole = steps(recipe.with_epochs('retrain', 1))
    fewest = max(LEAST_TRAINING_EPOCHS, -(-LEAST_TRAINING_STEPS // whole))
    shortest = shortest_training(recipe, data)
    assert shortest.retrain.epochs == fewest and LEAST_TRAINING_STEPS <= steps(shortest) <= max(LEAST_TRAINING_STEPS + whole, 1.01 * 300)
    for seconds in (steps(shortest), 1.5 * steps(shortest), fewest * whole, 7.5 * fewest * whole, 1e9):
        longest = longest_training(recipe, data, seconds, steps)
        assert longest is not None and steps(longest) <= seconds
        epochs, portion = longest.retrain.epochs, longest.retrain.portion
        if seconds >= fewest * whole:
            assert portion == 1 and epochs == min(MOST_TRAINING_EPOCHS if fewest < 200 else fewest, seconds // whole)
        else:
            assert epochs == fewest and steps(longest) >= 0.97 * seconds
    assert longest_training(recipe, data, steps(shortest) - 1, steps) is None
