"""The Pareto front against its definition, and what an experiment's networks are compared by."""

from __future__ import annotations

import random

import pytest

from nni_darts.experiment.protocol import Job
from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY
from nni_darts.report.fronts import cost_text, cost_title, front_charts, limits_of, networks, pareto_front


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


def test_a_cost_of_some_networks_is_compared_among_these() -> None:
    jobs = [Job('select', 'a', seed, 'x') for seed in (1, 2, 3)]
    results = {
        'select a 1': {'default': 0.9, 'parameters': 10, 'latency_ms': 4.5},
        'select a 2': {'default': 0.8, 'parameters': 20, 'latency_ms': 2.5},
        'select a 3': {'default': 0.7, 'parameters': 5},
    }
    found = networks(jobs, results, ACCURACY)
    assert found['select']['fronts'] == {'parameters': ['select a 3', 'select a 1'], 'latency_ms': ['select a 2', 'select a 1']}
    summary = {'sizes': {stage: {**entry, 'limits': {'latency_ms': 4.75}} for stage, entry in found.items()}}
    by_parameters, by_latency = front_charts(summary, ACCURACY, {'a': 0})
    assert by_parameters.count('<circle') == 3 and 'limit' not in by_parameters
    assert 'validation accuracy, % against latency, ms' in by_latency and by_latency.count('<circle') == 2 and '>limit 4.75<' in by_latency


def test_costs_are_named_and_written() -> None:
    assert [cost_title(name) for name in ('parameters', 'multiply_adds', 'latency_ms')] == ['parameters', 'multiply-adds', 'latency, ms']
    assert [cost_text(value) for value in (None, 1234567, 12.34567, 20.0)] == ['–', '1,234,567', '12.35', '20']


def test_limits_concern_networks_of_the_size_of_retrain_only() -> None:
    limits = {'limits.parameters': '80k', 'limits.multiply_adds': '1M'}
    same, smaller = (Recipe.load('digits', {**limits, **changes}) for changes in ({}, {'select.channels': 4}))
    assert limits_of(same, 'select') == limits_of(smaller, 'retrain') == {'parameters': 80_000, 'multiply_adds': 1_000_000}
    assert limits_of(smaller, 'select') == limits_of(Recipe.load('digits'), 'retrain') == {}
