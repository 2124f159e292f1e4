from __future__ import annotations

import itertools

import pytest
import torch

from nni_darts import Genotype
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import create_strategy
from tests.helpers.spaces import TwoLabels


@pytest.mark.parametrize('seed', range(20))
def test_against_brute_force_over_pairs_of_edges(seed: int) -> None:
    """The chosen pair of edges and operations has the largest sum of probabilities among all that avoid ``none``."""
    torch.manual_seed(seed)
    strategy = create_strategy('darts-1st')
    strategy.mutate_model(DartsSpace(channels=1, cells=3))
    for alpha in strategy.arch_parameters():
        torch.nn.init.normal_(alpha, std=2.0)
    genotype = Genotype.from_sample(strategy.select())
    for kind in ('normal', 'reduce'):
        for state, edges in enumerate(genotype.node_edges(kind), start=2):
            tables = [torch.softmax(strategy.architecture.alpha(f'{kind}_op_{state}_{source}'), 0) for source in range(state)]
            options = itertools.product(itertools.combinations(range(state), 2), range(1, 8), range(1, 8))
            best = max(options, key=lambda option: float(tables[option[0][0]][option[1]] + tables[option[0][1]][option[2]]))
            (first, second), one, two = best
            assert set(edges) == {(DARTS_OPERATIONS[one], first), (DARTS_OPERATIONS[two], second)}


def test_raw_alpha_would_choose_other_edges() -> None:
    """A known bug elsewhere: ranking by α without the softmax changes the topology of most cells."""
    different = 0
    strategy = create_strategy('darts-1st')
    strategy.mutate_model(DartsSpace(channels=1, cells=3))
    for seed in range(30):
        torch.manual_seed(seed)
        for alpha in strategy.arch_parameters():
            torch.nn.init.normal_(alpha)
        sample = strategy.select()
        raw = {}
        for state in range(2, 6):
            best = [float(strategy.architecture.alpha(f'normal_op_{state}_{source}')[1:].max()) for source in range(state)]
            raw[state] = sorted(sorted(range(state), key=lambda source: -best[source])[:2])
        different += any(raw[state] != sample[f'normal_input_{state}'] for state in raw)
    assert different > 15


def test_a_diverged_search_gives_no_cell() -> None:
    strategy = create_strategy('darts-1st')
    strategy.mutate_model(TwoLabels())
    with torch.no_grad():
        strategy.architecture.alpha('layer')[0] = float('nan')
    with pytest.raises(ArithmeticError, match='not finite'):
        strategy.select()
