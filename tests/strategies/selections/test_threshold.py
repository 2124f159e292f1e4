"""FairDARTS' cells with zero to two inputs for each node."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nni_darts.genotypes.convolutional import Genotype
from nni_darts.search_spaces import S5, DartsSpace, network_from_genotype
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.relaxations import Sigmoid
from nni_darts.strategies.selections import Magnitude, Threshold
from tests.reference.threshold import sparse_cell


def searched(seed: int, threshold: float = 0.85, scale: float = 2.0) -> DifferentiableStrategy:
    strategy = DifferentiableStrategy(Sigmoid(), selection=Threshold(threshold), execution='plain')
    strategy.mutate_model(DartsSpace(2, 3, 3, 1, nodes=4))
    torch.manual_seed(seed)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha, std=scale)
    return strategy


def written_out(strategy: DifferentiableStrategy, kind: str, threshold: float) -> list[list[tuple[str, int]]]:
    tables = strategy.probabilities()
    return sparse_cell([[tables[f'{kind}_op_{state}_{source}'] for source in range(state)] for state in range(2, 6)], threshold)


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('threshold', [0.85, 0.95, 0.99])
def test_a_cell_is_the_references(seed: int, threshold: float) -> None:
    strategy = searched(seed, threshold, 1.2)
    genotype = Genotype.from_sample(strategy.select())
    for kind in ('normal', 'reduce'):
        assert [list(edges) for edges in genotype.node_edges(kind)] == written_out(strategy, kind, threshold)


def test_nodes_have_zero_one_and_two_inputs() -> None:
    counts = set()
    for seed in range(12):
        genotype = Genotype.from_sample(searched(seed, 0.95, 1.2).select())
        counts |= {sum(name != 'none' for name, _ in edges) for kind in ('normal', 'reduce') for edges in genotype.node_edges(kind)}
    assert counts == {0, 1, 2}


def test_a_cell_that_would_compute_nothing_keeps_two_edges_for_each_node() -> None:
    strategy = searched(0, scale=0.01)
    sample = strategy.select()
    strategy.selection = Magnitude()
    assert sample == strategy.select() and 'none' not in str(Genotype.from_sample(sample).normal)


def test_without_a_candidate_none_edges_stay() -> None:
    strategy = DifferentiableStrategy(Sigmoid(), selection=Threshold(0.999))
    strategy.mutate_model(S5(2, 3, 3))
    strategy.arch_parameters()[0].data[0] = 9.0
    assert 'none' not in strategy.select().values()


def test_its_network_and_all_its_forms_have_fewer_edges() -> None:
    """JSON, the literature's text, the code, NNI's sample, the drawing, and a network with fewer parameters."""
    strategy = searched(3, 0.95, 1.2)
    genotype = Genotype.from_sample(strategy.select())
    strategy.selection = Magnitude()
    whole = Genotype.from_sample(strategy.select())
    missing = sum(genotype.count('none', kind) for kind in ('normal', 'reduce'))
    assert missing > 1
    assert Genotype.from_json(genotype.to_json()) == genotype == Genotype.from_text(genotype.to_text())
    assert Genotype.from_code(genotype.code()) == genotype == Genotype.from_sample(genotype.to_sample())
    boxes = [sum(len(graph.boxes) for graph in cell.graphs()) for cell in (genotype, whole)]
    assert boxes[1] - boxes[0] == missing
    sizes = []
    for cell in (genotype, whole):
        network = network_from_genotype(cell, channels=4, cells=4, num_classes=3, in_channels=1)
        assert network(torch.randn(2, 1, 8, 8)).isfinite().all()
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    assert sizes[0] < sizes[1]


def test_fairdarts_has_the_published_settings() -> None:
    strategy = create_strategy('fairdarts')
    assert isinstance(strategy.selection, Threshold) and strategy.selection.threshold == 0.85
    assert strategy.optimizer_settings == {'lr': 3e-3, 'betas': (0.9, 0.999), 'weight_decay': 1e-3}
    assert [(term.weight, term.power) for term in strategy.loss_terms] == [(10.0, 2)]
