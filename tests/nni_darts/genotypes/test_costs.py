"""Sums of costs are exact."""

from __future__ import annotations

import random

from nni_darts.genotypes.costs import CostTable
from nni_darts.genotypes.neighbours import Choices


def test_a_sum_of_decimals_is_the_nearest_number_to_the_exact_sum_in_any_order() -> None:
    rng = random.Random(1)
    labels = [f'op_{number}' for number in range(40)]
    for _ in range(200):
        units = {label: rng.randrange(1, 10**7) for label in labels}
        rng.shuffle(labels)
        table = CostTable({'latency_ms': 0.1}, {label: {'conv': {'latency_ms': units[label] / 10**6}} for label in labels})
        choices = Choices({label: ('conv',) for label in labels})
        assert table.of(choices, dict.fromkeys(labels, 'conv'))['latency_ms'] == (100_000 + sum(units.values())) / 10**6


def test_whole_numbers_stay_whole_numbers() -> None:
    table = CostTable({'parameters': 10**15 + 1}, {'a': {'conv': {'parameters': 2}}})
    cost = table.of(Choices({'a': ('conv', 'skip')}), {'a': 'conv'})['parameters']
    assert isinstance(cost, int) and cost == 10**15 + 3
