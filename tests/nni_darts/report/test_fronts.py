"""The Pareto front against its definition, and what an experiment's networks are compared by."""

from __future__ import annotations

import random

import pytest

from nni_darts.experiment.protocol import Job
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY
from nni_darts.report.fronts import networks, pareto_front


@pytest.mark.parametrize('maximize', [True, False])
@pytest.mark.parametrize('seed', range(30))
def test_the_front_is_what_nothing_dominates(seed: int, maximize: bool) -> None:
    rng = random.Random(seed)
    costs = [rng.randrange(6) for _ in range(12)]
    values = [rng.randrange(6) for _ in range(12)]

    def dominates(one: int, other: int) -> bool:
        better = values[one] - values[other] if maximize else values[other] - values[one]
        cheaper = costs[other] - costs[one]
        return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)

    best = {index for index in range(12) if not any(dominates(other, index) for other in range(12))}
    found = pareto_front(costs, values, maximize=maximize)
    assert {(costs[index], values[index]) for index in found} == {(costs[index], values[index]) for index in best}
    assert len({(costs[index], values[index]) for index in found}) == len(found)  # of equal ones one
    assert [costs[index] for index in found] == sorted(costs[index] for index in found)


def test_no_entry_has_an_empty_front() -> None:
    assert pareto_front([], [], maximize=True) == []


def test_networks_of_one_stage_are_compared_by_one_part() -> None:
    cheap, dear, last = Job('select', 'a', 1, 'x'), Job('select', 'b', 1, 'y'), Job('retrain', 'a', 1, 'x')
    results = {
        'select a 1': {'default': 0.8, 'parameters': 10, 'multiply_adds': 300},
        'select b 1': {'default': 0.9, 'parameters': 20, 'multiply_adds': 200},
        'retrain a 1': {'default': 0.99, 'test_accuracy': 0.7, 'parameters': 40, 'multiply_adds': 800},
        'search a 1': {'default': 0.5, 'parameters': 40, 'multiply_adds': 800},
    }
    found = networks([Job('search', 'a', 1), cheap, dear, last], results, ACCURACY)
    assert [(row['key'], row['value']) for row in found['select']['networks']] == [('select a 1', 0.8), ('select b 1', 0.9)]
    assert found['select']['fronts'] == {'parameters': ['select a 1', 'select b 1'], 'multiply_adds': ['select b 1']}
    assert [(row['key'], row['value']) for row in found['retrain']['networks']] == [('retrain a 1', 0.7)]
    # Of perplexity less is better.
    assert networks([cheap, dear], results, PERPLEXITY)['select']['fronts']['parameters'] == ['select a 1']
