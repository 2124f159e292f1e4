"""Selections below limits: decisions leave an architecture within them, and the result is the strongest one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.costs import CostTable, chosen_candidates
from nni_darts.genotypes.neighbours import darts_choices
from nni_darts.genotypes.program import Program
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.relaxations import Softmax
from nni_darts.strategies.selections import Greedy, Magnitude, Selection
from nni_darts.strategies.selections.perturbation import Progressive

OPERATIONS = ('none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3')
COSTS = {'none': 0, 'skip_connect': 0, 'max_pool_3x3': 3, 'sep_conv_3x3': 1000}


class Random(Progressive):
    """Decides by random scores, as if a supernet had been scored."""

    def score(self, architecture: Architecture, label: str, candidates: Sequence[int], module: Any) -> list[float]:
        return [random.random() for _ in candidates]


Random.__module__ = 'nni_darts.strategies.selections.perturbation'


class OfStrategy:
    """The only attribute of a search's module that decisions by random scores read."""

    def __init__(self, strategy: DifferentiableStrategy) -> None:
        self.strategy = strategy


def searched(selection: Selection, limit: int, seed: int) -> DifferentiableStrategy:
    """Returns a strategy with a supernet of two nodes, random α, and a limit on parameters."""
    torch.manual_seed(seed)
    random.seed(seed)
    strategy = DifferentiableStrategy(Softmax(), FirstOrder(), selection)
    with torch.device('meta'):
        space = DartsSpace(channels=2, cells=3, nodes=2, operations=OPERATIONS)
    choices = darts_choices(space.candidates)
    each = {name: {'parameters': cost} for name, cost in COSTS.items()}
    table = CostTable({'parameters': 500}, dict.fromkeys(choices.operations, each))
    strategy.keep_below(Program(choices, table, {'parameters': limit}))
    strategy.mutate_model(space)
    with torch.no_grad():
        for alpha in strategy.architecture.arch_parameters():
            alpha.data = torch.randn(len(alpha), device='cpu')
    return strategy


def check(strategy: DifferentiableStrategy) -> Genotype:
    sample = strategy.select()
    assert strategy.limits is not None and strategy.limits.holds(sample)
    return Genotype.from_sample(sample)


@pytest.mark.parametrize('limit', [500, 503, 1506, 2500, 4503, 8500])
def test_all_cells_by_magnitude_are_within_the_limit(limit: int) -> None:
    convolutions = {check(searched(Magnitude(), limit, seed)).to_text().count('sep_conv_3x3') for seed in range(40)}
    assert max(convolutions) <= (limit - 500) // 1000
    assert limit in (500, 503, 8500) or max(convolutions) == (limit - 500) // 1000


def test_a_limit_that_the_strongest_cell_keeps_changes_nothing() -> None:
    for seed in range(20):
        assert searched(Magnitude(), 8500, seed).select() == searched(Magnitude(), 10**9, seed).select()


@pytest.mark.parametrize('limit', [500, 1503, 2500, 4000])
def test_no_progressive_decision_leaves_the_limit_out_of_reach(limit: int) -> None:
    beyond = 0
    for seed in range(10):
        strategy = searched(Random(), limit, seed)
        architecture, module = strategy.architecture, OfStrategy(strategy)
        for _ in range(strategy.selection.events(architecture)):  # type: ignore[attr-defined]
            written = strategy.selection.decide(architecture, module)  # type: ignore[arg-type]
            beyond += sum('beyond_limits' in record for record in written)
            check(strategy)  # the decisions so far leave an architecture
        assert set(architecture.state.fixed) == set(architecture.operations())
        assert all(len(architecture.view.inputs(label)) == 2 for label in architecture.inputs())
    assert beyond  # some decisions would have been others without the limit


@pytest.mark.parametrize('limit', [500, 1503, 2500, 4000])
def test_no_greedy_decision_leaves_the_limit_out_of_reach(limit: int) -> None:
    for seed in range(10):
        strategy = searched(Greedy(), limit, seed)
        architecture, module = strategy.architecture, OfStrategy(strategy)
        for epoch in range(strategy.selection.rounds(architecture)):  # type: ignore[attr-defined]
            strategy.selection.observe(epoch, 50, architecture, strategy.relaxation)
            strategy.selection.decide(architecture, module)  # type: ignore[arg-type]
            found = check(strategy)
            decided = {(label, architecture.decisions[label].names[index]) for label, index in architecture.state.fixed.items()}  # type: ignore[union-attr]
            assert decided <= {edge for edges in found.edges().values() for edge in edges}  # a decided edge is in every later cell


@pytest.mark.parametrize('limit', [500, 1506, 3500])
def test_the_rule_on_skip_connections_gives_way_to_the_limit_only(limit: int) -> None:
    for seed in range(25):
        strategy = searched(Magnitude(max_skips=1), limit, seed)
        found = check(strategy)
        assert found.count('skip_connect') <= (4 if limit == 500 else 1)
    free = searched(Magnitude(max_skips=1), 10**9, 3)
    assert free.select() == Magnitude(max_skips=1).select(free.architecture, free.relaxation)


def test_the_strength_is_that_of_the_best_cell_within_the_limit() -> None:
    strategy = searched(Magnitude(), 2500, 7)
    tables = strategy.probabilities()
    program = strategy.limits
    assert program is not None

    def strength(sample: dict[str, Any]) -> float:
        return sum(tables[label][value] for label, value in chosen_candidates(program.choices, sample) if label in tables)

    best, rng = strength(strategy.select()), random.Random(1)
    drawn = [Genotype.random(rng, nodes=2, operations=OPERATIONS).to_sample(OPERATIONS) for _ in range(3000)]
    assert best >= max(strength(sample) for sample in drawn if program.holds(sample)) - 1e-9


def test_a_selection_of_the_users_own_must_say_that_it_keeps_limits() -> None:
    class Own(Magnitude):
        pass

    program = searched(Magnitude(), 2500, 1).limits
    assert program is not None
    with pytest.raises(ValueError, match='the selection Own may exceed them; .* within_limits = True'):
        DifferentiableStrategy(selection=Own()).keep_below(program)
    Own.within_limits = True  # type: ignore[attr-defined]
    DifferentiableStrategy(selection=Own()).keep_below(program)
