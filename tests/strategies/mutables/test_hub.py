"""The spaces of NNI's hub at a small size: what a supernet computes, against its frozen model and the model that NNI builds."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from nni.nas.hub import pytorch as hub
from torch import Tensor, nn

from nni_darts._nni import ModelSpace, model_context, recursive_freeze
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.mutables.cell import ChosenCell
from nni_darts.strategies.trained.in_process import SampleSpace
from tests.helpers.hub import HUB

CELLS = {'DARTS', 'NASNet', 'ENAS', 'AmoebaNet', 'PNAS'}


def space_of(name: str, **changes: Any) -> ModelSpace:
    return getattr(hub, name)(**{**HUB[name], **changes})


def supernet(name: str, method: str, **changes: Any) -> tuple[DifferentiableStrategy, ModelSpace, dict[str, Any]]:
    """The strategy, the supernet with running statistics of its own, and a sample."""
    torch.manual_seed(0)
    space = space_of(name, **changes).double()
    samples = SampleSpace(space)
    sample = samples.sample(samples.random_cell(random.Random(2)))
    strategy = create_strategy(method)
    model = strategy.mutate_model(space)
    with torch.no_grad():
        model.train()(images())
    return strategy, model.eval(), sample


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def built_by_nni(name: str, sample: dict[str, Any], frozen: nn.Module) -> nn.Module:
    """Returns the model that NNI builds of a sample, with the weights of a frozen supernet, of which it has fewer input channels."""
    with model_context(sample):
        model = space_of(name).double()
    cells = [(name, module) for name, module in frozen.named_modules() if isinstance(module, ChosenCell)]
    places = {name: number for number, (name, _) in enumerate(cells)}

    def columns(parameter: str, size: int) -> list[int]:
        cell = parameter.partition('.preprocessor')[0]
        behind = 2 if '.pre0.' in parameter else 1
        _, source = cells[-1] if cell not in places else cells[places[cell] - behind]
        width = size // len(source.nodes)
        return [width * node + channel for node in source.loose_ends for channel in range(width)]

    own = model.state_dict()
    given = list(frozen.state_dict().items())
    assert len(own) == len(given)
    for (key, target), (parameter, value) in zip(own.items(), given):
        own[key] = value if value.shape == target.shape else value[:, columns(parameter, value.shape[1])]
    model.load_state_dict(own)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize('name', HUB)
def test_one_hot_supernet_computes_what_nni_builds(name: str) -> None:
    strategy, model, sample = supernet(name, 'darts-1st')
    for label, decision in strategy.architecture.decisions.items():
        chosen = decision.names.index(sample[label]) if hasattr(decision, 'names') else sample[label]
        strategy.architecture.alpha(label).fill_(-1e4)[chosen] = 1e4
    frozen = recursive_freeze(model, sample, include_root=False)[0]
    expected = frozen(images())
    torch.testing.assert_close(model(images()), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(built_by_nni(name, sample, frozen)(images()), expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize('name', HUB)
def test_sampled_path_computes_what_is_frozen(name: str) -> None:
    strategy, model, sample = supernet(name, 'random-ws')
    path = {
        label: (decision.names.index(sample[label]),) if hasattr(decision, 'names') else tuple(sample[label])
        for label, decision in strategy.architecture.decisions.items()
    }
    with strategy.architecture.viewed(path=path):
        result = model(images())
    torch.testing.assert_close(result, recursive_freeze(model, sample, include_root=False)[0](images()), rtol=0, atol=1e-10)


def test_number_of_cells_can_be_searched_from_six_on() -> None:
    strategy, model, sample = supernet('ENAS', 'darts-1st', num_cells=[6, 8], width=2)
    assert strategy.architecture.decisions['depth'].names == (6, 8)
    with torch.no_grad():
        strategy.architecture.state.fixed = {
            label: decision.names.index(sample[label]) for label, decision in strategy.architecture.operations().items()
        }
        for label in strategy.architecture.inputs():
            strategy.architecture.alpha(label).fill_(-1e4)[sample[label]] = 1e4
        frozen = recursive_freeze(model, sample, include_root=False)[0]
        torch.testing.assert_close(model(images()), frozen(images()), rtol=0, atol=1e-10)


@pytest.mark.parametrize(('changes', 'message'), [({'num_cells': [3, 6]}, 'at least 6 cells'), ({'width': [2, 4]}, 'choose one width')])
def test_sizes_of_cells_that_no_supernet_can_hold_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_strategy('darts-1st').mutate_model(space_of('DARTS', **changes))


def test_nasbench101_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match='random'):
        create_strategy('darts-1st').mutate_model(hub.NasBench101(stem_out_channels=4, num_stacks=1, num_modules_per_stack=1))
