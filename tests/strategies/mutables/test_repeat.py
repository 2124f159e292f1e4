"""Relaxed depths."""

from __future__ import annotations

import pytest
import torch

from nni_darts.strategies import create_strategy
from tests.helpers.choices import Count, Depth, Halving, images


def test_depth_zero_has_its_weight() -> None:
    strategy = create_strategy('darts-1st')
    model = strategy.mutate_model(Count())
    strategy.architecture.alpha('depth').data = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    torch.testing.assert_close(model(torch.zeros(2)), torch.full((2,), 0.3 * 1 + 0.2 * 2))


def test_parameters_keep_their_names() -> None:
    names = {name for name in Depth().state_dict() if 'layers.1.blocks' in name}
    assert names and names <= set(create_strategy('darts-1st').mutate_model(Depth()).state_dict())


def test_blocks_beyond_the_path_are_not_computed() -> None:
    strategy = create_strategy('random-ws')
    model = strategy.mutate_model(Count())
    runs = []
    for block in model.blocks.blocks:
        block.register_forward_hook(lambda *_: runs.append(1))
    with strategy.architecture.viewed(path={'depth': (1,)}):
        assert float(model(torch.zeros(()))) == 1
    assert len(runs) == 1


def test_decided_depth_computes_only_its_blocks() -> None:
    strategy = create_strategy('darts-1st+pt')
    model = strategy.mutate_model(Count())
    strategy.architecture.state.fixed['depth'] = 0
    x = torch.ones(3)
    assert model(x) is x


def test_depths_of_different_shape_are_named() -> None:
    model = create_strategy('darts-1st').mutate_model(Halving())
    with pytest.raises(ValueError, match=r"Repeat 'blocks' \(label depth\): outputs differ in shape between depths .*enas"):
        model(images(dtype=torch.float32))
