from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from nni_darts import Genotype
from nni_darts.report.cost import network_cost
from nni_darts.search_spaces import network_from_genotype


@pytest.mark.parametrize('seed', range(4))
def test_against_counting_layer_by_layer(seed: int) -> None:
    genotype = Genotype.random(random.Random(seed))
    sizes = {'channels': 6, 'cells': 5, 'num_classes': 7, 'in_channels': 2}
    network = network_from_genotype(genotype, **sizes).eval()
    total = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            total += output.numel() * (module.in_channels // module.groups) * height * width
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.randn(1, 2, 18, 18))
    cost = network_cost(genotype, **sizes, image_size=(18, 18))
    assert cost.multiply_adds == total
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
