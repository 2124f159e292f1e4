"""The integer program finds the same architecture as brute force over all architectures of small spaces."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from nni_darts.genotypes.candidates import edge_candidates
from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.costs import CostTable, JointCosts, chosen_candidates
from nni_darts.genotypes.neighbours import NASBENCH201_CHOICES, Choices, Inputs, darts_choices
from nni_darts.genotypes.program import AtMost, Decided, Program

CELLS = darts_choices(edge_candidates(('skip_connect', 'sep_conv_3x3', 'none', 'max_pool_3x3'), 2))
ANY = Choices({'layer': ('a', 'b', 'c')}, {'few': Inputs((0, 1, 2), 2), 'any': Inputs(('x', 'y', 'z'), None)})


def _of(choices: Choices, kind: str) -> Choices:
    operations = {label: values for label, values in choices.operations.items() if label.startswith(kind)}
    return Choices(operations, {label: inputs for label, inputs in choices.inputs.items() if label.startswith(kind)})


SPACES = {'cell': _of(CELLS, 'normal'), 'inputs': ANY}


def all_samples(choices: Choices) -> Iterator[dict[str, Any]]:
    """Yields every combination of candidates."""
    options: list[list[Any]] = [list(values) for values in choices.operations.values()]
    for inputs in choices.inputs.values():
        sizes = range(1, len(inputs.values) + 1) if inputs.chosen is None else [inputs.chosen]
        options.append([list(subset) for size in sizes for subset in itertools.combinations(inputs.values, size)])
    for values in itertools.product(*options):
        yield dict(zip([*choices.operations, *choices.inputs], values))


ALL = {name: [list(chosen_candidates(choices, sample)) for sample in all_samples(choices)] for name, choices in SPACES.items()}
"""Space → the chosen candidates of every architecture."""


def random_table(choices: Choices, rng: random.Random) -> CostTable:
    largest = 10 ** rng.randint(1, 7)

    def costs() -> dict[str, int]:
        return {'parameters': rng.randrange(largest), 'multiply_adds': 64 * rng.randrange(largest)}

    values = {**choices.operations, **{label: inputs.values for label, inputs in choices.inputs.items() if not inputs.edges}}
    return CostTable({'parameters': 7, 'multiply_adds': 11}, {label: {value: costs() for value in of} for label, of in values.items()})


def random_scores(choices: Choices, rng: random.Random) -> dict[tuple[str, Any], float]:
    operations = {(label, value): rng.random() for label, values in choices.operations.items() for value in values}
    free = {label: inputs for label, inputs in choices.inputs.items() if not inputs.edges}
    return operations | {(label, value): rng.random() - 0.3 for label, inputs in free.items() for value in inputs.values}


def costs_of(table: CostTable, chosen: list[tuple[str, Any]], measure: str) -> float:
    return table.fixed[measure] + sum(table.candidates[label][value][measure] for label, value in chosen if label in table.candidates)


def score_of(scores: dict[tuple[str, Any], float], chosen: Any) -> float:
    return sum(scores.get(candidate, 0) for candidate in chosen)


@pytest.mark.parametrize('name', SPACES)
def test_the_best_of_500_random_tables_is_that_of_brute_force(name: str) -> None:
    choices, rng, found_none = SPACES[name], random.Random(1), 0
    for number in range(500):
        table, scores = random_table(choices, rng), random_scores(choices, rng)
        measures = [['parameters'], ['multiply_adds'], ['parameters', 'multiply_adds']][number % 3]
        # The limit is the cost of some architecture, or just below, so that exactness counts.
        limits = {measure: costs_of(table, rng.choice(ALL[name]), measure) - rng.randrange(2) for measure in measures}
        allowed = [chosen for chosen in ALL[name] if all(costs_of(table, chosen, measure) <= limits[measure] for measure in measures)]
        found = Program(choices, table, limits).best(scores)
        assert (found is None) == (not allowed)
        if found is None:
            found_none += 1
            continue
        chosen = list(chosen_candidates(choices, found))
        assert all(costs_of(table, chosen, measure) <= limits[measure] for measure in measures)
        assert score_of(scores, chosen) == pytest.approx(max(score_of(scores, other) for other in allowed), abs=1e-8)
    assert 0 < found_none < 250


def test_decisions_and_rules_are_those_of_brute_force() -> None:
    choices, rng = SPACES['cell'], random.Random(2)
    skips = frozenset((label, 'skip_connect') for label in choices.operations)
    node, impossible = 'normal_input_3', 0
    for _ in range(150):
        table, scores = random_table(choices, rng), random_scores(choices, rng)
        limit = costs_of(table, rng.choice(ALL['cell']), 'parameters')
        fixed = {label: rng.choice(values) for label, values in choices.operations.items() if rng.random() < 0.4}
        gone = rng.choice(choices.inputs[node].values)
        kept = frozenset(label for label in fixed if label.startswith('normal_op_2') and rng.random() < 0.5)
        count = rng.randrange(3)
        allowed = [
            chosen
            for chosen in ALL['cell']
            if costs_of(table, chosen, 'parameters') <= limit
            and all(label not in fixed or fixed[label] == value for label, value in chosen)
            and (node, gone) not in chosen
            and kept <= {label for label, _ in chosen}
            and sum(candidate in skips for candidate in chosen) <= count
        ]
        program, decided = Program(choices, table, {'parameters': limit}), Decided(fixed, {node: [gone]}, kept)
        found = program.best(scores, decided, [AtMost(skips, count)])
        assert (found is None) == (not allowed)
        if found is None:
            impossible += 1
            continue
        best = max(sum(scores.get(candidate, 0) for candidate in chosen) for chosen in allowed)
        assert sum(scores.get(candidate, 0) for candidate in chosen_candidates(choices, found)) == pytest.approx(best, abs=1e-8)
    assert 0 < impossible < 150


def test_smallest_costs_and_counts_are_those_of_brute_force() -> None:
    for name, choices in SPACES.items():
        rng = random.Random(3)
        for _ in range(20):
            table = random_table(choices, rng)
            program = Program(choices, table, {'parameters': costs_of(table, rng.choice(ALL[name]), 'parameters')})
            for measure in ('parameters', 'multiply_adds'):
                assert program.cheapest(measure) == min(costs_of(table, chosen, measure) for chosen in ALL[name])
            some = frozenset((label, choices.operations[label][0]) for label in choices.operations)
            held = [chosen for chosen in ALL[name] if costs_of(table, chosen, 'parameters') <= program.limits['parameters']]
            assert program.fewest(some) == min(sum(candidate in some for candidate in chosen) for chosen in held)


def test_samples_freeze_the_space_and_unlimited_programs_agree_with_the_strongest_edges() -> None:
    rng = random.Random(4)
    table, scores = random_table(CELLS, rng), random_scores(CELLS, rng)
    found = Program(CELLS, table, {}).best(scores)
    assert found is not None and set(found) == {*CELLS.operations, *CELLS.inputs}
    assert Genotype.from_sample(found).nodes == 2
    for label, inputs in CELLS.inputs.items():
        strength = {value: max(scores[edge, name] for name in CELLS.operations[edge]) for value, edge in zip(inputs.values, inputs.edges)}
        assert found[label] == sorted(sorted(strength, key=strength.__getitem__)[-2:])
    for label, names in CELLS.operations.items():
        assert found[label] == max(names, key=lambda name: scores[label, name])


LAYERS = Choices({'width': (8, 16, 24), 'kernel': (3, 5), 'depth': (0, 1, 2), 'skip': ('yes', 'no')}, {'few': Inputs((0, 1, 2), 2)})


def joint_table(rng: random.Random) -> CostTable:
    """Returns a table in which costs depend on pairs and triples of choices, and some candidates cost the same."""
    most, joint = 10 ** rng.randint(1, 7), []
    for labels in (['width', 'kernel'], ['width', 'depth', 'skip'], ['kernel', 'depth']):
        values = {label: LAYERS.operations[label] for label in labels}
        amounts = [rng.randrange(most) if rng.random() < 0.7 else 0 for _ in range(math.prod(map(len, values.values())))]
        joint.append(JointCosts(values, {'parameters': amounts, 'multiply_adds': [64 * amount + 1 for amount in amounts]}))
    return CostTable({'parameters': 7, 'multiply_adds': 11}, random_table(LAYERS, rng).candidates, joint)


def test_the_best_of_200_tables_of_joint_costs_is_that_of_brute_force() -> None:
    rng, found_none, samples = random.Random(6), 0, list(all_samples(LAYERS))
    for number in range(200):
        table, scores = joint_table(rng), random_scores(LAYERS, rng)
        costs = [table.of(LAYERS, sample) for sample in samples]
        measures = [['parameters'], ['parameters', 'multiply_adds']][number % 2]
        limits = {measure: rng.choice(costs)[measure] - rng.randrange(2) for measure in measures}
        allowed = [sample for sample, cost in zip(samples, costs) if all(cost[measure] <= limits[measure] for measure in measures)]
        program = Program(LAYERS, table, limits)
        found = program.best(scores)
        assert (found is None) == (not allowed) == (not program.possible())
        assert program.cheapest('multiply_adds') == min(cost['multiply_adds'] for cost in costs)
        if found is None:
            found_none += 1
            continue
        assert program.holds(found)
        best = max(score_of(scores, chosen_candidates(LAYERS, sample)) for sample in allowed)
        assert score_of(scores, chosen_candidates(LAYERS, found)) == pytest.approx(best, abs=1e-8)
    assert 0 < found_none < 100


def test_joint_costs_of_a_part_of_the_candidates_are_those_of_brute_force() -> None:
    rng = random.Random(7)
    left = Choices({'width': (24, 8), 'kernel': (5,), 'depth': (2, 0), 'skip': ('no', 'yes')}, LAYERS.inputs)
    for _ in range(30):
        table = joint_table(rng)
        for measure in ('parameters', 'multiply_adds'):
            assert Program(left, table, {}).cheapest(measure) == min(table.of(left, sample)[measure] for sample in all_samples(left))


def test_limits_at_billions_hold_to_the_last_unit() -> None:
    rng, choices = random.Random(5), NASBENCH201_CHOICES
    for _ in range(5):
        amounts = {(label, value): rng.randrange(10**9) for label, values in choices.operations.items() for value in values}
        table = CostTable(
            {'multiply_adds': 10**9 + 1},
            {label: {value: {'multiply_adds': amounts[label, value]} for value in values} for label, values in choices.operations.items()},
        )
        costs = sorted(10**9 + 1 + sum(amounts[item] for item in sample.items()) for sample in all_samples(choices))
        limit = costs[len(costs) // 2]
        for below in (0, 1):
            found = Program(choices, table, {'multiply_adds': limit - below}).best(amounts)
            assert found is not None and table.of(choices, found)['multiply_adds'] == costs[len(costs) // 2 - below]


@pytest.mark.parametrize('name', SPACES)
def test_limits_on_amounts_with_decimals_hold_exactly_and_lose_no_solution(name: str) -> None:
    """Milliseconds are exact decimals: no limit is exceeded by rounding, and none forbids an architecture that costs just as much."""
    choices, rng, at_limit = SPACES[name], random.Random(6), 0
    for number in range(300):
        whole, scores = random_table(choices, rng), random_scores(choices, rng)
        # Units of the last decimal, which stand for the exact amounts; coarse ones make many sums equal.
        unit = rng.choice([1, 100_000])
        units = {
            label: {value: unit * (costs['parameters'] % (5000 if unit == 1 else 9)) for value, costs in of.items()}
            for label, of in whole.candidates.items()
        }
        fixed = rng.randrange(3_000_000)
        amounts = {label: {value: {'latency_ms': n / 10**6} for value, n in of.items()} for label, of in units.items()}
        table = CostTable({'latency_ms': fixed / 10**6}, amounts)

        def exact(chosen: list[tuple[str, Any]], units: Any = units, fixed: int = fixed) -> int:
            return fixed + sum(units[label][value] for label, value in chosen if label in units)

        limit = exact(rng.choice(ALL[name])) - number % 2
        allowed = [chosen for chosen in ALL[name] if exact(chosen) <= limit]
        program = Program(choices, table, {'latency_ms': limit / 10**6})
        found = program.best(scores)
        assert (found is None) == (not allowed)
        if found is None:
            continue
        chosen = list(chosen_candidates(choices, found))
        assert exact(chosen) <= limit
        assert table.of(choices, found)['latency_ms'] == exact(chosen) / 10**6
        assert score_of(scores, chosen) == pytest.approx(max(score_of(scores, other) for other in allowed), abs=1e-8)
        assert program.cheapest('latency_ms') == min(map(exact, ALL[name])) / 10**6
        at_limit += exact(chosen) == limit
    assert at_limit > 20
