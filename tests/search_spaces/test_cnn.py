from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional

from nni_darts import PUBLISHED, Genotype
from nni_darts._nni import model_context
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS, OPERATION_NAMES
from nni_darts.report.cost import network_cost
from nni_darts.search_spaces import DartsSpace, network_from_genotype
from nni_darts.search_spaces.cell import FixedNode
from nni_darts.search_spaces.operations import FactorizedReduce, create_operation
from tests.reference.cell import reference_forward

CONVOLUTIONAL = [name for name, genotype in PUBLISHED.items() if isinstance(genotype, Genotype)]
SMALL = {'channels': 4, 'cells': 4, 'num_classes': 5}


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_darts_v2_has_the_published_number_of_parameters() -> None:
    """3.35 M on CIFAR-10 and 4.72 M on ImageNet; to the parameter what the authors' networks have."""
    assert count(network_from_genotype(PUBLISHED['DARTS_V2'], 36, 20, 10)) == 3_349_342
    assert count(network_from_genotype(PUBLISHED['DARTS_V2'], 48, 14, 1000, stem='imagenet')) == 4_718_752


def test_multiply_adds_of_the_mobile_network() -> None:
    """Convolutions and linear layers make 530 M. The paper says 574 M, which nobody has been able to count in its network."""
    cost = network_cost(PUBLISHED['DARTS_V2'], channels=48, cells=14, num_classes=1000, stem='imagenet', image_size=(224, 224))
    assert cost.parameters == 4_718_752
    assert cost.multiply_adds == pytest.approx(530e6, rel=0.001)


@pytest.mark.parametrize('name', CONVOLUTIONAL)
@pytest.mark.parametrize('stem', ['cifar', 'imagenet'])
def test_published_cells_build_and_run(name: str, stem: str) -> None:
    size = 32 if stem == 'imagenet' else 16
    network = network_from_genotype(PUBLISHED[name], 4, 6, 5, stem=stem, auxiliary=True, drop_path=0.2)
    images = torch.randn(3, 3, size, size)
    logits, auxiliary = network.train()(images)
    assert logits.shape == auxiliary.shape == (3, 5)
    assert network.eval()(images).shape == (3, 5)


@pytest.mark.parametrize('size', [(8, 8), (9, 9), (7, 11)])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('name', OPERATION_NAMES)
def test_operations_keep_or_halve_any_size(name: str, stride: int, size: tuple[int, int]) -> None:
    output = create_operation(name, 6, stride, affine=True)(torch.randn(2, 6, *size))
    assert output.shape == (2, 6, *(-(-side // stride) for side in size))


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize('size', [(1, 1), (2, 2), (3, 4), (5, 1), (4, 7)])
def test_factorized_reduce_is_two_strided_convolutions_side_by_side(size: tuple[int, int], layout: torch.memory_format) -> None:
    reduce = FactorizedReduce(3, 5, affine=False).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    expected = torch.cat(
        [functional.conv2d(image, conv.weight, stride=2) for image, conv in ((x, reduce.conv_1), (shifted, reduce.conv_2))], 1
    )
    assert torch.allclose(reduce.reduce(x), expected, rtol=1e-12, atol=1e-14)
    weights, gradient = [x, reduce.conv_1.weight, reduce.conv_2.weight], torch.randn_like(expected)
    found = torch.autograd.grad(reduce.reduce(x), weights, gradient)
    for one, other in zip(found, torch.autograd.grad(expected, weights, gradient)):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)


def test_factorized_reduce_reads_every_other_pixel_twice() -> None:
    reduce = FactorizedReduce(1, 2, affine=False)
    for conv in (reduce.conv_1, reduce.conv_2):
        torch.nn.init.ones_(conv.weight)
    reduce.bn = torch.nn.Identity()
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(reduce(image)[0, 0], image[0, 0, ::2, ::2])
    assert torch.equal(reduce(image)[0, 1], image[0, 0, 1::2, 1::2])


@pytest.mark.parametrize('seed', range(5))
def test_frozen_space_and_network_compute_the_same(seed: int) -> None:
    genotype = Genotype.random(random.Random(seed), nodes=3, operations=DARTS_OPERATIONS)
    space = DartsSpace(nodes=3, **SMALL)
    images = torch.randn(2, 3, 12, 12)
    frozen = space.freeze(genotype.to_sample())
    network = network_from_genotype(genotype, **SMALL)
    network.load_state_dict(frozen.state_dict())  # strict
    with model_context(genotype.to_sample()):
        fresh = DartsSpace(nodes=3, **SMALL)
    fresh.load_state_dict(network.state_dict())
    for mode in (True, False):
        expected = network.train(mode)(images)
        assert torch.equal(frozen.train(mode)(images), expected)
        assert torch.equal(fresh.train(mode)(images), expected)


def test_a_fixed_network_has_only_the_chosen_edges() -> None:
    genotype = Genotype.random(random.Random(0), nodes=3)
    network = network_from_genotype(genotype, **SMALL)
    with model_context(genotype.to_sample()):
        fresh = DartsSpace(nodes=3, **SMALL)
    assert count(fresh) == count(network)
    assert all(len(node.edges) == 2 for node in network.modules() if isinstance(node, FixedNode))


@pytest.mark.parametrize('name', CONVOLUTIONAL)
def test_cells_compute_what_their_genotype_says(name: str) -> None:
    """Against a forward pass written from the genotype alone."""
    network = network_from_genotype(PUBLISHED[name], 4, 4, 5).eval()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(images), reference_forward(network, PUBLISHED[name], images))


def test_the_space_has_one_choice_for_all_cells_of_a_kind() -> None:
    labels = DartsSpace(channels=2, cells=6).simplify()
    assert len(labels) == 2 * (14 + 4)
    assert labels['normal_op_5_4'].values == list(DARTS_OPERATIONS)
    assert labels['reduce_input_5'].n_chosen == 2


def test_drop_path_drops_all_edges_but_identities() -> None:
    node = FixedNode([(torch.nn.Identity(), 0), (torch.nn.Conv2d(1, 1, 1, bias=False), 1)]).train()
    torch.nn.init.ones_(node.edges[1].weight)
    node.drop_path = 0.5
    output = node([torch.ones(4000, 1, 1, 1), torch.ones(4000, 1, 1, 1)]).flatten()
    kept = output > 2
    assert torch.equal(output[~kept], torch.ones(int((~kept).sum())))
    assert torch.equal(output[kept], torch.full((int(kept.sum()),), 3.0))  # 1 + 1 / (1 − 0.5)
    assert 0.45 < kept.float().mean() < 0.55
    assert torch.equal(node.eval()([torch.ones(4, 1, 1, 1)] * 2).flatten(), torch.full((4,), 2.0))


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ({'cells': 2}, 'cells'),
        ({'channels': 0}, 'channels'),
        ({'stem': 'mnist'}, 'mnist'),
        ({'operations': ['none']}, 'none'),
        ({'operations': ['conv']}, 'conv'),
        ({'operations': ['skip_connect', 'skip_connect']}, 'different'),
        ({'nodes': 0}, 'nodes'),
    ],
)
def test_impossible_spaces(arguments: dict, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        DartsSpace(**arguments)
