"""Relaxations that draw once for each step: when they draw, and that a resumed search is the uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.relaxations import Concrete, ReinMax
from nni_darts.strategies.relaxations.sampling import Sampling
from tests.helpers.stopping import broken_and_resumed, measured
from tests.helpers.tiny import overrides, write_images

EDGE = 'normal_op_2_0'


@pytest.mark.parametrize('make', [Concrete, ReinMax])
def test_cells_of_a_kind_share_a_draw_and_there_is_none_between_steps(make: type[Sampling]) -> None:
    torch.manual_seed(0)
    relaxation = make()
    strategy = DifferentiableStrategy(relaxation)
    model = strategy.mutate_model(DartsSpace(2, 3, 4, 1, nodes=1))
    architecture, alpha, drawn = strategy.architecture, strategy.architecture.alpha(EDGE), []
    for _ in range(8):
        relaxation.begin_step(0.0)
        drawn.append(relaxation.weights(EDGE, alpha).detach())
        assert torch.equal(drawn[-1], relaxation.weights(EDGE, alpha))  # wherever it is asked for
        with relaxation.weight_step(architecture, lambda: torch.zeros(()), model, 0.0):
            drawn.append(relaxation.weights(EDGE, alpha).detach())
        assert torch.equal(relaxation.weights(EDGE, alpha), torch.softmax(alpha, 0))
    assert len({tuple(weights.tolist()) for weights in drawn}) > 3
    assert all(float(weights.sum()) == pytest.approx(1) for weights in drawn)


@pytest.mark.parametrize('name', ['snas', 'reinmax', 'proxyless'])
def test_a_resumed_search_is_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), 'search.epochs': 3, 'space.nodes': 1})
    one, other = broken_and_resumed(recipe, name, tmp_path)
    assert one[0] == other[0] and measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    alphas = [line['probabilities'] for line in measured(tmp_path / 'unbroken')]
    assert alphas[0] != alphas[-1]
