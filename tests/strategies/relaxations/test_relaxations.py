from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies.differentiable import DifferentiableStrategy
from nni_darts.strategies.relaxations import AdversarialSoftmax, Fixed, Gumbel, RandomSoftmax, Softmax
from nni_darts.strategies.selections import ProgressiveMagnitude
from tests.helpers.fitting import fit
from tests.helpers.stopping import broken_and_resumed, measured
from tests.helpers.tiny import overrides, write_images

Made = tuple[DifferentiableStrategy, nn.Module, Callable[[], Tensor]]


def trained(relaxation: object, steps: int = 20, **space: object) -> Made:
    """A tiny supernet trained a little on a fixed batch, and its training loss."""
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation)
    model = strategy.mutate_model(DartsSpace(channels=2, cells=3, nodes=2, num_classes=4, in_channels=1, **space))
    images, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 4
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def loss() -> Tensor:
        return functional.cross_entropy(model(images), labels)

    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha, std=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return strategy, model, loss


def alphas(strategy: DifferentiableStrategy) -> list[Tensor]:
    return [alpha.detach().clone() for alpha in strategy.arch_parameters()]


def test_fixed_alpha_is_uniform_whatever_alpha_says() -> None:
    strategy, model, loss = trained(Fixed(), 1)
    before = loss()
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    assert torch.equal(loss(), before)
    assert all(abs(p - 1 / 8) < 1e-7 for table in strategy.probabilities().values() for p in table.values())


def reachable(weights: Tensor, centre: Tensor, radius: float) -> bool:
    """Whether the weights are a point of the cube around the centre, cut off at 0 and divided by its sum, whatever that sum is."""
    kept = weights > 0
    least = ((centre[kept] - radius) / weights[kept]).max()
    most = ((centre[kept] + radius) / weights[kept]).min()
    return bool((centre[~kept] <= radius + 1e-6).all()) and float(least) <= float(most) * (1 + 1e-5)


def test_random_perturbations_stay_on_the_simplex_and_within_reach() -> None:
    relaxation = RandomSoftmax()
    strategy, model, loss = trained(relaxation)
    before, plain, draws = alphas(strategy), loss(), []
    for progress, radius in ((0.0, 0.03), (0.5, 0.165), (1.0, 0.3)):
        far = False
        for _ in range(20):
            with relaxation.weight_step(strategy.architecture, loss, model, progress):
                for label in strategy.architecture.operations():
                    weights = relaxation.weights(label, strategy.architecture.alpha(label))
                    centre = relaxation.probabilities(strategy.architecture.alpha(label))
                    assert float(weights.min()) >= 0 and float(weights.sum()) == pytest.approx(1, abs=1e-5)
                    assert reachable(weights.detach(), centre.detach(), radius)
                    far |= not reachable(weights.detach(), centre.detach(), 0.7 * radius)
                draws.append(float(loss().detach()))
        assert far  # the whole radius is used
    assert len(set(draws)) == len(draws)
    assert torch.equal(loss(), plain)  # outside a weight step nothing is perturbed
    assert all(torch.equal(a, b) for a, b in zip(before, alphas(strategy)))


def test_adversarial_perturbations_raise_the_training_loss() -> None:
    """In the mode they are found in, in at least 45 of 50 tries; α comes back bit-identical."""
    relaxation = AdversarialSoftmax()
    strategy, model, loss = trained(relaxation, operations=['none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3'])
    before = alphas(strategy)
    buffers = [buffer.clone() for buffer in model.buffers()]
    risen = 0
    for _ in range(50):
        for alpha in strategy.arch_parameters():
            nn.init.normal_(alpha, std=0.5)
        before = alphas(strategy)
        model.eval()
        plain = float(loss())
        model.train()
        with relaxation.weight_step(strategy.architecture, loss, model, 0.5):
            assert model.training and all(parameter.requires_grad for parameter in model.parameters())
            model.eval()
            risen += float(loss()) > plain
            model.train()
            for label in strategy.architecture.operations():
                weights = relaxation.weights(label, strategy.architecture.alpha(label))
                assert float(weights.min()) >= 0 and float(weights.sum()) == pytest.approx(1, abs=1e-5)
        assert all(torch.equal(a, b) for a, b in zip(before, alphas(strategy)))
    assert risen >= 45 and relaxation.kept >= 45 and relaxation.tried == 50
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers()))


def test_a_perturbation_that_does_not_hurt_is_dropped() -> None:
    relaxation = AdversarialSoftmax()
    strategy, model, loss = trained(relaxation, 0)
    with relaxation.weight_step(strategy.architecture, lambda: sum(a.sum() for a in model.parameters()) * 0, model, 0.5):
        for label in strategy.architecture.operations():
            alpha = strategy.architecture.alpha(label)
            assert torch.equal(relaxation.weights(label, alpha), relaxation.probabilities(alpha))
    assert (relaxation.tried, relaxation.kept) == (1, 0)


def test_gumbel_computes_only_what_it_draws() -> None:
    relaxation = Gumbel()
    calls: list[int] = []

    class Candidate(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.number)
            return x * self.number

    candidates = [Candidate(number) for number in range(1, 5)]
    alpha = nn.Parameter(torch.tensor([0.0, 1.0, 2.0, 0.0]))
    counts = torch.zeros(4)
    for _ in range(2000):
        calls.clear()
        output = relaxation.mix('x', alpha, candidates, (torch.ones(3),), {})
        assert len(calls) == 1
        torch.testing.assert_close(output, torch.full((3,), float(calls[0])))
        counts[calls[0] - 1] += 1
    torch.testing.assert_close(counts / 2000, torch.softmax(alpha.detach(), 0), atol=0.05, rtol=0)
    (gradient,) = torch.autograd.grad(output.sum(), alpha)
    assert float(gradient.abs().sum()) > 0
    with torch.no_grad():
        calls.clear()
        relaxation.mix('x', alpha, candidates, (torch.ones(3),), {})
        assert calls == [3]


def test_cells_of_a_kind_share_the_draw_of_a_pass() -> None:
    relaxation = Gumbel()
    alpha = torch.zeros(8)
    places = [[nn.Identity() for _ in range(8)] for _ in range(5)]
    drawn = []
    for _ in range(30):
        indices = set()
        for candidates in places:
            for number, module in enumerate(candidates):
                module.forward = lambda x, number=number, seen=indices: (seen.add(number), x)[1]
            relaxation.mix('x', alpha, candidates, (torch.ones(1),), {})
        assert len(indices) == 1
        drawn.append(indices.pop())
    assert len(set(drawn)) > 3


def test_the_temperature_falls() -> None:
    relaxation = Gumbel()
    for progress, expected in ((0.0, 10.0), (0.5, 5.05), (1.0, 0.1), (2.0, 0.1)):
        relaxation.begin_step(progress)
        assert relaxation.temperature == pytest.approx(expected)


@pytest.mark.parametrize(
    'make',
    [lambda: RandomSoftmax(0.5, 0.1), lambda: RandomSoftmax(0.1, 1.0), lambda: AdversarialSoftmax(steps=0), lambda: Gumbel(0.1, 1.0)],
)
def test_settings_outside_their_range(make: Callable[[], object]) -> None:
    with pytest.raises(
        ValueError, match='must grow within|must be a number from 0|must be a whole number from 1|must fall and stay above 0'
    ):
        make()


def test_softmax_and_plain_agree() -> None:
    alpha = torch.randn(5)
    assert torch.equal(Softmax().weights('x', alpha), torch.softmax(alpha, 0))


def test_a_resumed_search_has_the_temperature_of_its_epoch(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), 'search.epochs': 3, 'space.nodes': 1})
    broken_and_resumed(recipe, 'gdas', tmp_path, 3)
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


def test_the_radius_grows_by_epochs_as_published() -> None:
    """ε = 0.03 + 0.27·e / E: it reaches 0.3 only after the last epoch of the search."""
    reached: list[float] = []

    class Watched(RandomSoftmax):
        def _perturb(self, centres: dict, radius: float, loss: object, model: nn.Module) -> None:
            reached.append(radius)
            super()._perturb(centres, radius, loss, model)

    images, labels = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.arange(4) % 4
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    space = DartsSpace(2, 3, 4, 1, nodes=1, operations=['skip_connect', 'max_pool_3x3'])
    selection = ProgressiveMagnitude(epochs_between=1)
    fit(DifferentiableStrategy(Watched(), selection=selection), space, (loader, loader), epochs=3, classes=4)
    assert reached == pytest.approx([0.03, 0.12, 0.21, 0.3])  # three epochs of search, one of tuning
