"""Zero-cost proxies against values computed by hand and by slow references."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts import Genotype, NasBench201Genotype
from nni_darts.report.cost import network_cost
from nni_darts.search_spaces import network_from_genotype
from nni_darts.strategies.proxies import PROXIES, Batch, score
from nni_darts.strategies.proxies.distances import relu_kernel
from nni_darts.strategies.trained.prior import PROXY_NAMES
from tests.reference.proxies import jacob_cov_by_images, naswot_by_units, snip_by_masks


def two_layers(hidden: int = 5) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, 3, bias=False)).double()


def convolutional() -> nn.Sequential:
    torch.manual_seed(4)
    layers = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 3)]
    return nn.Sequential(*layers).double()


def batch(*shape: int, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return Batch(images, torch.arange(shape[0]) % 3)


def cell(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return network_from_genotype(NasBench201Genotype.random(random.Random(seed)), channels=4, cells=3)


def test_the_names_are_those_that_need_no_torch() -> None:
    assert tuple(PROXIES) == PROXY_NAMES


# Weights ------------------------------------------------------------------------------------------------------------------------------


def test_synflow_is_twice_the_output_of_a_network_of_two_layers() -> None:
    """With θ ≥ 0 and no bias, R is linear in each layer, so Σ θ · ∂R/∂θ is R for each."""
    network = two_layers()
    first, last = network[1].weight.abs(), network[3].weight.abs()
    output = float((last @ first).detach().sum())  # for ones, every ReLU is on
    assert score('synflow', network, batch(2, 1, 2, 2)) == pytest.approx(2 * output, rel=1e-12)


def test_synflow_of_every_layer_equals_the_output() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 3, 3, bias=False), nn.Flatten())
    network.append(nn.Linear(3 * 4, 2, bias=False))
    positive = copy.deepcopy(network).double()
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    output = positive(torch.ones(1, 2, 4, 4, dtype=torch.float64)).sum()
    output.backward()
    for parameter in positive.parameters():
        assert float((parameter.detach() * parameter.grad).sum()) == pytest.approx(output.item(), rel=1e-12)
    assert score('synflow', network, batch(2, 2, 4, 4)) == pytest.approx(3 * output.item(), rel=1e-6)


def test_synflow_reads_neither_the_images_nor_the_buffers_of_batch_norm() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2, bias=False))
    without = nn.Sequential(*(layer for layer in network if not isinstance(layer, nn.BatchNorm2d)))
    expected = score('synflow', without, batch(2, 2, 4, 4))
    network[1].running_mean.fill_(-7.0)
    network[1].running_var.fill_(100.0)
    network[1].num_batches_tracked.fill_(5)
    assert score('synflow', network, batch(3, 2, 4, 4, seed=9)) == expected > 0


def test_synflow_of_a_deep_network_is_finite() -> None:
    deep = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(60)))
    with torch.no_grad():
        for layer in deep:
            layer.weight.fill_(1.0)
    value = score('synflow', deep, Batch(torch.zeros(2, 64), torch.zeros(2, dtype=torch.long)))
    assert value == pytest.approx(60 * 64.0**61, rel=1e-9)  # float32 ends at 3 · 10³⁸


def test_snip_by_hand() -> None:
    """One weight, two classes: logits (w x, −w x), so ∂L/∂w = −2 x (1 − p)."""
    network = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5], [-0.5]]))
    one = Batch(torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([0]))
    wrong = 1 / (1 + math.exp(3.0))  # probability of the other class
    assert score('snip', network, one) == pytest.approx(2 * 0.5 * 3.0 * wrong, rel=1e-12)
    assert score('grad_norm', network, one) == pytest.approx(math.sqrt(2) * 3.0 * wrong, rel=1e-12)


@pytest.mark.parametrize('network', [two_layers(), convolutional()], ids=['linear', 'convolutional'])
def test_snip_is_the_gradient_of_masks(network: nn.Module) -> None:
    images = batch(6, 1, 2, 2) if isinstance(network[0], nn.Flatten) else batch(6, 1, 4, 4)
    assert score('snip', network, images) == pytest.approx(snip_by_masks(network, images.images, images.labels), rel=1e-12)


def test_grad_norm_adds_the_norms_of_layers_without_biases() -> None:
    network, images = convolutional(), batch(6, 1, 4, 4)
    functional.cross_entropy(network(images.images), images.labels).backward()
    expected = sum(float(network[at].weight.grad.norm()) for at in (0, 2, 5))
    assert score('grad_norm', network, images) == pytest.approx(expected, rel=1e-12)


# Distances ----------------------------------------------------------------------------------------------------------------------------


def codes_of(network: nn.Sequential, images: Tensor) -> Tensor:
    rows, x = [], images
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            rows.append((x > 0).flatten(1))
    return torch.cat(rows, dim=1).int()


@pytest.mark.parametrize(('network', 'side'), [(two_layers(9), 2), (convolutional(), 4)], ids=['linear', 'convolutional'])
def test_naswot_is_the_determinant_of_agreements(network: nn.Sequential, side: int) -> None:
    images = batch(5, 1, side, side)
    expected = naswot_by_units(codes_of(network, images.images).numpy())
    assert score('naswot', network, images) == pytest.approx(expected, rel=1e-9)


def test_the_diagonal_of_the_kernel_is_the_number_of_relu_units() -> None:
    kernel = relu_kernel(convolutional(), batch(5, 1, 4, 4).images)
    assert kernel.diagonal().tolist() == [3 * 16 + 4 * 4] * 5
    assert torch.equal(kernel, kernel.T) and kernel.max() == kernel[0, 0]


def test_two_identical_images_make_naswot_minus_infinity() -> None:
    images = batch(5, 1, 4, 4)
    images.images[3] = images.images[1]
    assert score('naswot', convolutional(), images) == -math.inf


def test_naswot_counts_functions_as_it_counts_modules() -> None:
    class Functional(nn.Module):
        def __init__(self, made_of: nn.Sequential) -> None:
            super().__init__()
            self.first, self.second, self.last = made_of[0], made_of[2], made_of[5]

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.first(x))
            return self.last(torch.relu_(self.second(x)).flatten(1))

    images = batch(5, 1, 4, 4)
    assert score('naswot', Functional(convolutional()), images) == score('naswot', convolutional(), images)


def test_naswot_leaves_out_a_relu_that_does_not_reach_the_output() -> None:
    class DeadEnd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.side = convolutional(), nn.Conv2d(1, 2, 1).double()

        def forward(self, x: Tensor) -> Tensor:
            ignored = torch.zeros_like(functional.relu(self.side(x)))
            return self.whole(x) + ignored.sum() + functional.relu(ignored).sum()

    images = batch(5, 1, 4, 4)
    assert score('naswot', DeadEnd(), images) == score('naswot', convolutional(), images)


def test_jacob_cov_against_one_image_at_a_time() -> None:
    network, images = convolutional(), batch(6, 1, 4, 4)
    assert score('jacob_cov', network, images) == pytest.approx(jacob_cov_by_images(network, images.images), rel=1e-6)


def test_jacob_cov_by_hand() -> None:
    """A linear network has the same gradient for all images: correlations are 1, and the eigenvalues B, 0, …, 0."""
    network, k = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double(), 1e-5
    value = score('jacob_cov', network, batch(3, 1, 2, 2))
    assert value == pytest.approx(-(math.log(3 + k) + 1 / (3 + k)) - 2 * (math.log(k) + 1 / k), rel=1e-6)


def test_jacob_cov_of_an_output_without_gradient_is_minus_infinity() -> None:
    network = two_layers()
    with torch.no_grad():
        network[1].weight.fill_(0.0)
    assert score('jacob_cov', network, batch(3, 1, 2, 2)) == -math.inf


# Zen and sizes ------------------------------------------------------------------------------------------------------------------------


def test_zen_of_a_linear_map_by_hand() -> None:
    """f is linear, so the change is 0.01 times f of the noise, and there is no batch norm to undo."""
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double()
    torch.manual_seed(7)
    weight = torch.randn(3, 2, 1, 1, dtype=torch.float64)
    torch.randn(2, 3, dtype=torch.float64)  # the classifier
    _, noise = torch.randn(4, 2, 5, 5, dtype=torch.float64), torch.randn(4, 2, 5, 5, dtype=torch.float64)
    expected = math.log(0.01 * float(functional.conv2d(noise, weight).abs().sum()) / 4)
    assert score('zen', network, batch(4, 2, 5, 5), seed=7) == pytest.approx(expected, rel=1e-9)


def test_zen_undoes_the_scale_of_a_batch_norm() -> None:
    """f / σ changes by the same as f up to a common factor, which ln σ of the batch itself restores."""
    torch.manual_seed(5)
    plain = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1, bias=False)).double()
    normed = nn.Sequential(copy.deepcopy(plain[0]), nn.BatchNorm2d(1, eps=1e-12, momentum=0.1)).double()
    images = batch(64, 2, 6, 6)
    # The second batch has its own statistics, which differ by about a percent of 0.01.
    assert score('zen', normed, images) == pytest.approx(score('zen', plain, images), abs=0.02)


def test_sizes_are_those_of_the_cost_command() -> None:
    genotype = NasBench201Genotype.random(random.Random(1))
    sizes = {'channels': 4, 'cells': 3, 'num_classes': 10}
    cost, network = network_cost(genotype, **sizes), network_from_genotype(genotype, **sizes)
    images = Batch(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))
    assert score('parameters', network, images) == cost.parameters
    assert score('multiply_adds', network, images) == cost.multiply_adds


# All proxies --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures() -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8))


@pytest.mark.parametrize('name', PROXY_NAMES)
def test_scoring_changes_nothing_and_repeats_itself(name: str, pictures: Batch) -> None:
    network = cell().eval()
    before, images = copy.deepcopy(network.state_dict()), pictures.images.clone()
    state = torch.get_rng_state()
    first = score(name, network, pictures)
    assert score(name, network, pictures) == first and math.isfinite(first)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(pictures.images, images) and not network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters()) and not pictures.images.requires_grad


@pytest.mark.parametrize('name', PROXY_NAMES)
def test_every_proxy_scores_cells_of_darts(name: str, pictures: Batch) -> None:
    torch.manual_seed(0)
    cells = [Genotype.random(random.Random(seed)) for seed in (1, 2)]
    scores = [score(name, network_from_genotype(genotype, channels=4, cells=3, auxiliary=True), pictures) for genotype in cells]
    assert all(map(math.isfinite, scores)) and scores[0] != scores[1]


@pytest.mark.parametrize(('name', 'least'), [('synflow', 0.0), ('jacob_cov', -math.inf), ('naswot', -math.inf), ('zen', -math.inf)])
def test_a_cell_without_connections_has_the_least_score(name: str, least: float, pictures: Batch) -> None:
    disconnected = network_from_genotype(NasBench201Genotype(('none',) * 6), channels=4, cells=3)
    assert score(name, disconnected, pictures) == least < score(name, cell(), pictures)


@pytest.mark.parametrize(
    ('name', 'network', 'words'),
    [
        ('snip', nn.Flatten(), 'weights of nn.Conv2d and nn.Linear'),
        ('naswot', nn.Linear(3, 2), 'the network has none'),
        ('zen', nn.Linear(3, 2), 'feature maps'),
        ('fisher', nn.Linear(3, 2), 'unknown proxy .fisher.; known: synflow'),
    ],
)
def test_a_network_that_a_proxy_cannot_read(name: str, network: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score(name, network, Batch(torch.rand(2, 3, requires_grad=True), torch.tensor([0, 1])))
