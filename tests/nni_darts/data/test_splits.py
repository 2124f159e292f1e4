from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_darts.data.splits import hold_out, largest_share, missing_classes, split, split_in_two, stratified_split
from nni_darts.errors import InputError
from nni_darts.recipe import DataSettings


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
