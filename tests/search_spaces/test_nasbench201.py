from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from nni_darts._nni import DataLoader, model_context
from nni_darts.genotypes.nasbench201 import EDGES, OPERATIONS, NasBench201Genotype, edge_label
from nni_darts.search_spaces.nasbench201 import NasBench201Space, nasbench201_network
from nni_darts.strategies import create_strategy
from tests.helpers import fitting

SMALL = {'channels': 4, 'cells': 3, 'num_classes': 5}
LABELS = [edge_label(*edge) for edge in EDGES]


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def uniform(name: str) -> NasBench201Genotype:
    return NasBench201Genotype((name,) * 6)


def shake(network: torch.nn.Module) -> None:
    """Gives every batch norm its own scale, shift and statistics, so that forgetting one of them shows."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                if tensor is not None:
                    torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:
                    torch.nn.init.normal_(tensor)


def reference_forward(state: dict[str, Tensor], genotype: NasBench201Genotype, x: Tensor, cells: int) -> Tensor:
    """Logits of a network in eval mode, from its tensors alone: the slow and obvious version."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (state[f'{name}.{key}'].reshape(1, -1, 1, 1) for key in ('running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f'{name}.weight']
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def pool(x: Tensor) -> Tensor:
        """The mean of each pixel's neighbours inside the image."""
        output = torch.empty_like(x)
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                output[:, :, row, column] = x[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].mean(dim=(2, 3))
        return output

    def halve(x: Tensor) -> Tensor:
        """The mean of each block of 2×2 pixels, or of as much of it as there is."""
        rows = []
        for row in range(0, x.shape[2], 2):
            blocks = [x[:, :, row : row + 2, column : column + 2].mean(dim=(2, 3)) for column in range(0, x.shape[3], 2)]
            rows.append(torch.stack(blocks, dim=2))
        return torch.stack(rows, dim=2)

    def edge(name: str, operation: str, x: Tensor) -> Tensor:
        if operation == 'none':
            return torch.zeros_like(x)
        if operation == 'skip_connect':
            return x
        if operation == 'avg_pool_3x3':
            return pool(x)
        return norm(f'{name}.2', conv(f'{name}.1', functional.relu(x)))

    x = norm('stem.1', conv('stem.0', x))
    per_stage = cells // 3
    for index in range(cells + 2):
        name = f'cells.{index}'
        if index in (per_stage, 2 * per_stage + 1):
            inner = norm(f'{name}.residual.2', conv(f'{name}.residual.1', functional.relu(x), stride=2))
            inner = norm(f'{name}.residual.3.2', conv(f'{name}.residual.3.1', functional.relu(inner)))
            x = inner + conv(f'{name}.shortcut.1', halve(x))
            continue
        a, b, c, d, e, f = genotype.operations
        node_1 = edge(f'{name}.edges.0', a, x)
        node_2 = edge(f'{name}.edges.1', b, x) + edge(f'{name}.edges.2', c, node_1)
        x = edge(f'{name}.edges.3', d, x) + edge(f'{name}.edges.4', e, node_1) + edge(f'{name}.edges.5', f, node_2)
    x = functional.relu(norm('head.0', x)).mean(dim=(2, 3))
    return x @ state['classifier.weight'].T + state['classifier.bias']


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [('nor_conv_3x3', 1_531_546), ('nor_conv_1x1', 241_306), ('skip_connect', 73_306), ('avg_pool_3x3', 73_306), ('none', 73_306)],
)
def test_networks_have_the_benchmarks_number_of_parameters(name: str, parameters: int) -> None:
    """73,306 outside the cells: stem 464, residual blocks 14,464 and 57,600, head 128, classifier 650."""
    assert count(nasbench201_network(uniform(name))) == parameters


@pytest.mark.parametrize('size', [(8, 8), (9, 9), (7, 10), (1, 3)])
@pytest.mark.parametrize('seed', range(4))
def test_networks_compute_what_their_cell_says(seed: int, size: tuple[int, int]) -> None:
    """Against a forward pass written from the cell and the tensors alone; images with odd sides, too."""
    genotype = NasBench201Genotype.random(random.Random(seed))
    network = nasbench201_network(genotype, 3, 6, 5, in_channels=2).double().eval()
    shake(network)
    images = torch.randn(2, 2, *size, dtype=torch.float64)
    expected = reference_forward(network.state_dict(), genotype, images, cells=6)
    assert expected.shape == (2, 5)
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize('seed', range(5))
def test_frozen_space_and_network_compute_the_same(seed: int) -> None:
    genotype = NasBench201Genotype.random(random.Random(seed))
    space = NasBench201Space(**SMALL)
    shake(space)
    images = torch.randn(2, 3, 12, 12)
    frozen = space.freeze(genotype.to_sample())
    network = nasbench201_network(genotype, **SMALL)
    network.load_state_dict(frozen.state_dict())  # strict
    with model_context(genotype.to_sample()):
        fresh = NasBench201Space(**SMALL)
    assert count(fresh) == count(network)
    fresh.load_state_dict(network.state_dict())
    for mode in (True, False):
        expected = network.train(mode)(images)
        assert torch.equal(frozen.train(mode)(images), expected)
        assert torch.equal(fresh.train(mode)(images), expected)


def test_the_same_seed_gives_the_same_fresh_weights() -> None:
    genotype = NasBench201Genotype.random(random.Random(0))
    torch.manual_seed(3)
    network = nasbench201_network(genotype, **SMALL)
    torch.manual_seed(3)
    with model_context(genotype.to_sample()):
        fresh = NasBench201Space(**SMALL)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), fresh.state_dict().values(), strict=True))


def test_nni_sees_six_labels() -> None:
    labels = NasBench201Space(channels=2, cells=6).simplify()
    assert list(labels) == LABELS
    assert all(label.values == list(OPERATIONS) for label in labels.values())


def test_only_the_candidates_batch_norms_are_not_affine_in_search() -> None:
    def affine(network: torch.nn.Module) -> dict[bool, set[bool]]:
        """Inside a cell or not → whether batch norms are affine."""
        found: dict[bool, set[bool]] = {True: set(), False: set()}
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                found['edges' in name].add(module.affine)
        return found

    genotype = uniform('nor_conv_3x3')
    assert affine(NasBench201Space(**SMALL)) == {True: {False}, False: {True}}
    assert affine(nasbench201_network(genotype, **SMALL)) == {True: {True}, False: {True}}
    assert affine(nasbench201_network(genotype, **SMALL, affine=False)) == {True: {False}, False: {True}}
    with model_context(genotype.to_sample()):
        assert affine(NasBench201Space(**SMALL)) == {True: {True}, False: {True}}


def test_nothing_follows_the_pool_or_the_identity() -> None:
    images = torch.randn(2, 3, 8, 8)
    space = NasBench201Space(channels=3, cells=3)
    choice = space.cells[0].edges[0]
    assert torch.equal(choice['skip_connect'](images), images)
    assert torch.equal(choice['none'](images), torch.zeros_like(images))
    assert torch.equal(choice['avg_pool_3x3'](images), functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False))


@pytest.mark.parametrize('name', OPERATIONS)
def test_every_cell_can_be_trained(name: str) -> None:
    """Even the empty one: then only the classifier's bias and the head learn."""
    network = nasbench201_network(uniform(name), **SMALL)
    functional.cross_entropy(network(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 2, 3])).backward()
    assert network.classifier.bias.grad is not None and network.classifier.bias.grad.abs().sum() > 0
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def fit(strategy: Any, space: Any) -> Any:
    """One epoch of two steps in float64."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 8, 8, generator=generator, dtype=torch.float64)
    data = TensorDataset(images, torch.randint(5, (16,), generator=generator))
    loaders = DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=8)
    return fitting.fit(strategy, space, loaders, classes=5)


def test_a_search_ends_in_a_cell() -> None:
    strategy = create_strategy('darts-1st')
    space = NasBench201Space(**SMALL)
    before = {name: value.clone() for name, value in space.named_parameters()}
    module = fit(strategy, space)
    assert strategy.architecture.labels() == LABELS
    assert all(alpha.shape == (5,) and torch.isfinite(alpha).all() for alpha in strategy.arch_parameters())
    assert [len(optimizer.state) for optimizer in module.trainer.optimizers[1:]] == [6]  # every α has moved
    moved = [name for name, value in module.model.named_parameters() if not torch.equal(before[name], value)]
    assert any('nor_conv_3x3' in name for name in moved) and any('stem' in name for name in moved)
    sample = strategy.select()
    genotype = NasBench201Genotype.from_sample(sample)
    assert genotype.to_sample() == sample
    frozen = module.model.freeze(sample).eval()
    network = nasbench201_network(genotype, **SMALL).double().eval()
    network.load_state_dict(frozen.state_dict())
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(network(images), frozen(images))


def test_none_may_be_chosen() -> None:
    strategy = create_strategy('darts-1st')
    strategy.mutate_model(NasBench201Space(**SMALL))
    for alpha in strategy.arch_parameters():
        alpha.data.copy_(torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0]))
    assert NasBench201Genotype.from_sample(strategy.select()) == uniform('none')


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ({'cells': 0}, 'cells .* not 0'),
        ({'cells': -3}, 'not -3'),
        ({'cells': 5}, 'multiple of 3 .* not 5'),
        ({'channels': 0}, 'channels'),
        ({'num_classes': 0}, 'num_classes'),
        ({'in_channels': 0}, 'in_channels'),
    ],
)
def test_impossible_sizes(arguments: dict[str, int], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        NasBench201Space(**arguments)
    with pytest.raises(ValueError, match=names):
        nasbench201_network(uniform('none'), **arguments)
