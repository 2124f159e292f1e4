"""Torchvision's networks as baselines: at their own size exactly torchvision's, at small sizes without its early halvings."""

from __future__ import annotations

import pytest
import torch
import torchvision

from nni_darts.genotypes import genotype_from_code, genotype_from_text
from nni_darts.genotypes.networks import KNOWN, KnownNetwork
from nni_darts.search_spaces import network_from_genotype


@pytest.mark.parametrize('name', KNOWN)
def test_for_large_images_it_is_torchvisions_network(name: str) -> None:
    ours = network_from_genotype(KnownNetwork(name), num_classes=5, stem='imagenet').eval()
    theirs = getattr(torchvision.models, name)(num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('stem', ['cifar', 'imagenet'])
@pytest.mark.parametrize('name', KNOWN)
def test_it_takes_images_of_any_channels(name: str, stem: str, channels: int) -> None:
    network = network_from_genotype(KnownNetwork(name), 8, 5, 4, in_channels=channels, stem=stem)
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(('name', 'halvings'), [('resnet18', 3), ('mobilenet_v3_small', 4)])
def test_the_stem_for_small_images_halves_them_less(name: str, halvings: int) -> None:
    network = network_from_genotype(KnownNetwork(name), stem='cifar').eval()
    sizes: list[int] = []
    for module in network.modules():
        if isinstance(module, torch.nn.AdaptiveAvgPool2d):
            module.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    network(torch.randn(1, 3, 32, 32))
    assert sizes[-1] == 32 >> halvings


@pytest.mark.parametrize('name', KNOWN)
def test_its_texts_are_read_back(name: str) -> None:
    network = KnownNetwork(name)
    assert genotype_from_code(network.code()) == genotype_from_text(network.to_json()) == network


@pytest.mark.parametrize('text', ['{"network": "vgg16"}', '{"network": "resnet18", "width": 2}'])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match='vgg16|width'):
        genotype_from_text(text)
