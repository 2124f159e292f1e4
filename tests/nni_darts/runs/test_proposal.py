"""The choices of ``fit``: valid recipes, sizes that follow the data, enough steps for α to move."""

from __future__ import annotations

import math

import pytest

from nni_darts.recipes import Recipe
from nni_darts.runs.proposal import (
    ALPHA_RATES,
    LARGEST_CIFAR_SIDE,
    REACH,
    SIZES,
    Facts,
    alpha_rate,
    epochs_for,
    image_sides,
    proposed_recipe,
    search_portion,
)

PHOTOS = Facts('folder', 'pets', images=400, classes=4, side=480, scalable=True, channels=3)
ARRAYS = Facts('fashion-mnist', 'fashion', images=60_000, classes=10, side=28, scalable=False, channels=1)


@pytest.mark.parametrize('size', SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize('facts', [PHOTOS, ARRAYS], ids=['photos', 'arrays'])
def test_every_proposal_is_a_valid_recipe(facts: Facts, size: object) -> None:
    for side in image_sides(facts):
        recipe = Recipe.from_dict(proposed_recipe(facts, size, side))
        assert recipe.space.stem == ('cifar' if (side or facts.side) <= LARGEST_CIFAR_SIDE else 'imagenet')


def test_images_are_not_enlarged_beyond_the_smallest_side() -> None:
    assert list(image_sides(PHOTOS)) == [128, 96, 64, 48, 32]
    small = Facts('folder', 'icons', images=400, classes=4, side=20, scalable=True, channels=3)
    assert list(image_sides(small)) == [32]
    assert list(image_sides(ARRAYS)) == [None]


def test_grey_arrays_are_not_mirrored() -> None:
    assert proposed_recipe(ARRAYS, SIZES[1], None)['data']['augment'] == 'crop'
    assert proposed_recipe(PHOTOS, SIZES[1], 64)['data']['augment'] == 'crop-flip'


@pytest.mark.parametrize('steps', [10, 300, 1000, 20_000])
def test_alpha_can_move_where_there_are_steps_enough(steps: int) -> None:
    rate = alpha_rate(steps)
    assert ALPHA_RATES[0] <= rate <= ALPHA_RATES[1]
    assert rate in ALPHA_RATES or rate * steps == pytest.approx(REACH, rel=0.5)


@pytest.mark.parametrize('steps', [300, 1000, 4000])
def test_a_portion_of_many_images_is_searched_for_ten_epochs(steps: int) -> None:
    portion = search_portion(steps, 60_000, 64)
    assert 10 * math.ceil(portion * 60_000 / 2 / 64) == pytest.approx(steps, rel=0.1)
    assert search_portion(steps, 400, 16) == 1.0


def test_epochs_keep_within_bounds() -> None:
    assert epochs_for(1000, 640, 64, (3, 200)) == 100
    assert epochs_for(1, 640, 64, (3, 200)) == 3
    assert epochs_for(10**6, 640, 64, (3, 200)) == 200
