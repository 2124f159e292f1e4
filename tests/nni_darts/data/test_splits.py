from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nni_darts.data import ArrayImages, ImageData, load_images
from nni_darts.data.splits import hold_out, largest_share, missing_classes, split, split_in_two, stratified_split
from nni_darts.errors import InputError
from nni_darts.recipes import DataSettings, Recipe
from nni_darts.runs.budget import training_portion
from nni_darts.runs.tasks import task_of


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 3))
def test_a_stratified_split_keeps_size_and_proportions(labels: list[int], portion: float, seed: int) -> None:
    count = int(portion * len(labels))
    first, second = stratified_split(labels, count, seed)
    assert len(first) == count and sorted(first + second) == list(range(len(labels)))
    assert (first, second) == stratified_split(labels, count, seed)
    sizes, taken = Counter(labels), Counter(labels[index] for index in first)
    if min(count, len(labels) - count) >= len(sizes):  # room for all classes in both parts
        for label, size in sizes.items():
            assert size < 2 or 1 <= taken[label] <= size - 1
            if min(count, len(labels) - count) / len(labels) * size >= 1:
                assert abs(taken[label] - count / len(labels) * size) <= len(sizes)


def test_a_rare_class_is_in_both_parts_and_a_random_split_misses_it() -> None:
    labels = [0] * 300 + [1] * 60 + [2] * 2
    parts = [split_in_two(labels, 362, 0.5, seed, 'stratified') for seed in range(20)]
    assert all([sum(labels[index] == label for index in part) for label in range(3)] == [150, 30, 1] for pair in parts for part in pair)
    lacking = [
        missing_classes([labels[index] for index in part], 'abc')
        for seed in range(20)
        for part in split_in_two(labels, 362, 0.5, seed, 'random')
    ]
    assert ['c'] in lacking
    assert split_in_two(labels, 362, 0.5, 3, 'random') == split(362, 0.5, 3) == split_in_two(None, 362, 0.5, 3, 'stratified')


def test_parts_are_shuffled_by_the_seed() -> None:
    labels = [0, 1] * 50
    first, _ = stratified_split(labels, 50, 1)
    assert first != sorted(first) and first != stratified_split(labels, 50, 2)[0]


def test_held_out_images_are_the_wanted_number() -> None:
    for count in (3, 10, 389, 1797):
        for portion in (0.001, 0.2, 0.333):
            train, test = hold_out([index % 3 for index in range(count)], DataSettings(name='digits', test_portion=portion))
            assert len(test) == max(1, round(portion * count)) and sorted(train + test) == list(range(count))
    with pytest.raises(InputError, match='test_portion = 0.9 leaves none of 2 images'):
        hold_out([0, 1], DataSettings(name='digits', test_portion=0.9))


def test_share_of_the_largest_class() -> None:
    assert largest_share([1, 1, 1, 0]) == 0.75


@pytest.mark.parametrize('rule', ['stratified', 'random'])
def test_a_portion_of_both_halves_for_a_search(rule: str) -> None:
    """Drawn by class from the halves that a whole search would have: what validates it is never learned from later on."""
    recipe = Recipe.load('digits', {'search.portion': 0.2, 'data.split': rule})
    data, task = load_images(recipe.data), task_of(recipe)
    (_, some), (_, whole) = task.searching(recipe, data, 1), task.searching(Recipe.load('digits', {'data.split': rule}), data, 1)
    for part, of in ((some.train_indices, whole.train_indices), (some.valid_indices, whole.valid_indices)):
        assert set(part) < set(of) and len(part) == int(0.2 * len(of)) and part != sorted(part)
        if rule == 'stratified':
            counts, of_counts = (Counter(data.train.labels[list(indices)].tolist()) for indices in (part, of))
            assert all(abs(counts[label] - 0.2 * of_counts[label]) < 1 for label in range(10))
    assert len(list(some.train_dataloader())) == task.batches(recipe, data)
    (_, select), (_, retrain) = (task.training(recipe, stage, data, 1) for stage in ('select', 'retrain'))
    assert len(select.train_indices) + len(select.valid_indices) == len(data.train)
    assert len(retrain.train_indices) + len(retrain.valid_indices) == len(data.train)
    assert task.describe(recipe, data).endswith('1×8×8, a search uses 20 % of the training images')


def test_a_portion_of_the_images_for_a_training() -> None:
    """Drawn by class from what a whole training learns from, and from what validates it."""
    portions = {'select.portion': 0.5, 'retrain.portion': 0.3, 'retrain.validation_portion': 0.1}
    recipe, whole = Recipe.load('digits', portions), Recipe.load('digits', {'retrain.validation_portion': 0.1})
    data, task = load_images(recipe.data), task_of(recipe)
    for stage, portion in (('select', 0.5), ('retrain', 0.3)):
        (_, some), (_, all_of_it) = (task.training(of, stage, data, 1) for of in (recipe, whole))
        for part, of in ((some.train_indices, all_of_it.train_indices), (some.valid_indices, all_of_it.valid_indices)):
            assert set(part) < set(of) and len(part) == int(portion * len(of))
            counts, of_counts = (Counter(data.train.labels[list(indices)].tolist()) for indices in (part, of))
            assert all(abs(counts[label] - portion * of_counts[label]) < 1 for label in range(10))
        assert len(list(some.train_dataloader())) == task.batches_of_training(recipe, stage, data)[0]
        assert training_portion(recipe, stage) == pytest.approx(portion * training_portion(whole, stage))


def test_a_portion_keeps_a_rare_class_and_must_leave_images() -> None:
    recipe = Recipe.load('digits', ['search.portion=0.1'])
    labels = torch.tensor([0] * 100 + [1] * 4)
    data = ImageData(ArrayImages(torch.zeros(104, 1, 8, 8, dtype=torch.uint8), labels), (), 2, 1, (8, 8), (0.5,), (0.1,))
    module = task_of(recipe).searching(recipe, data, 1)[1]
    assert module.lacking() == {'weights': [], 'validation': []}
    with pytest.raises(InputError, match='104 training images are too few to keep 0.001 of 0.5 of them for the weights'):
        few = Recipe.load('digits', ['search.portion=0.001'])
        task_of(few).searching(few, data, 1)
    for wrong in (0, 1.5, 'half'):
        with pytest.raises(InputError, match='search.portion'):
            Recipe.load('digits', {'search.portion': wrong})


def test_a_portion_costs_a_portion() -> None:
    recipe, whole = Recipe.load('digits', ['search.portion=0.2']), Recipe.load('digits')
    data = load_images(recipe.data)
    assert training_portion(recipe, 'search') == pytest.approx(0.2 * training_portion(whole, 'search'))
    assert training_portion(recipe, 'select') == training_portion(whole, 'select')
    portions = [task_of(each).evaluated_portion(each, data, None) for each in (recipe, whole)]
    assert portions[0] == pytest.approx(0.2 * portions[1])
