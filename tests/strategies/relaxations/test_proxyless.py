"""ProxylessNAS: the gradient of the gates, the two-path step, and what a step computes."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nni_darts.recipes import Recipe
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.architects import BilevelProblem, FirstOrder, architecture_gradient
from nni_darts.strategies.relaxations import BinaryGates
from nni_darts.strategies.relaxations.proxyless import _Gates
from tests.helpers import running
from tests.helpers.fitting import fit
from tests.helpers.spaces import TwoLabels
from tests.helpers.tiny import overrides, write_images
from tests.reference.sampling import jacobian_product

ALPHA = torch.tensor([0.4, -0.3, 1.0, 0.1], dtype=torch.float64)
CANDIDATES = [nn.Linear(3, 2, dtype=torch.float64) for _ in ALPHA]
X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
DIRECTION = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Scripted(BinaryGates):
    """Has the gates that a test gives it."""

    def __init__(self, active: int, sampled: list[int]) -> None:
        super().__init__()
        self.gates = _Gates(active, sampled, ALPHA)

    def drawn(self, label: str) -> Any:
        return self.gates


def linear(y: Tensor) -> Tensor:
    return (y * DIRECTION).sum()


def curved(y: Tensor) -> Tensor:
    return (y * DIRECTION).sum().sin() + y.square().sum()


def gradient(active: int, sampled: list[int], loss: Any) -> Tensor:
    alpha = ALPHA.clone().requires_grad_()
    output = Scripted(active, sampled).mix('x', alpha, CANDIDATES, (X,), {})
    assert torch.equal(output, CANDIDATES[active](X))
    return torch.autograd.grad(loss(output), alpha)[0]


def gate_gradients(active: int, loss: Any) -> Tensor:
    """b_j = ⟨∂L/∂y, o_j(x)⟩ for y = o_a(x)."""
    y = CANDIDATES[active](X).detach().requires_grad_()
    (of_output,) = torch.autograd.grad(loss(y), y)
    return torch.stack([(of_output * candidate(X).detach()).sum() for candidate in CANDIDATES])


@pytest.mark.parametrize('active', range(4))
def test_the_gradient_of_alpha_is_the_published_sum_over_gates(active: int) -> None:
    expected = jacobian_product(torch.softmax(ALPHA, 0), gate_gradients(active, curved))
    torch.testing.assert_close(gradient(active, [0, 1, 2, 3], curved), expected, rtol=1e-12, atol=1e-14)


def test_for_a_linear_loss_the_mean_over_paths_is_the_gradient_of_the_mixture() -> None:
    p = torch.softmax(ALPHA, 0)
    alpha = ALPHA.clone().requires_grad_()
    for loss, equal in ((linear, True), (curved, False)):
        mixture = sum(weight * candidate(X) for weight, candidate in zip(torch.softmax(alpha, 0), CANDIDATES))
        (expected,) = torch.autograd.grad(loss(mixture), alpha)
        mean = sum(weight * gradient(active, [0, 1, 2, 3], loss) for active, weight in enumerate(p))
        assert torch.allclose(mean, expected, rtol=1e-10, atol=1e-12) == equal


@pytest.mark.parametrize(('active', 'sampled'), [(2, [2, 1]), (1, [2, 1]), (0, [0, 3])])
def test_two_paths_share_the_gradient_between_them(active: int, sampled: list[int]) -> None:
    expected = torch.zeros_like(ALPHA)
    expected[sampled] = jacobian_product(torch.softmax(ALPHA[sampled], 0), gate_gradients(active, curved)[sampled])
    torch.testing.assert_close(gradient(active, sampled, curved), expected, rtol=1e-12, atol=1e-14)


def test_gates_are_drawn_by_the_probabilities() -> None:
    torch.manual_seed(0)
    p, count = torch.softmax(ALPHA, 0), 6000
    for paths in ('all', 'two'):
        pairs, active = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        for _ in range(count):
            gates = BinaryGates(paths).draw(ALPHA)
            assert gates.active in gates.sampled and len(set(gates.sampled)) == (4 if paths == 'all' else 2)
            active[gates.active] += 1 / count
            pairs[tuple(gates.sampled[:2])] += 1 / count
        if paths == 'all':
            torch.testing.assert_close(active, p, atol=0.03, rtol=0)
            continue
        # Without replacement: first i with p_i, then j with p_j / (1 − p_i); of the two, one by its part of their probability.
        expected = torch.zeros(4, dtype=torch.float64)
        for i, j in permutations(range(4), 2):
            pair = p[i] * p[j] / (1 - p[i])
            assert float(pairs[i, j]) == pytest.approx(float(pair), abs=0.03)
            expected[i] += pair * p[i] / (p[i] + p[j])
            expected[j] += pair * p[j] / (p[i] + p[j])
        torch.testing.assert_close(active, expected, atol=0.03, rtol=0)


class Mixed(nn.Module):
    """A supernet of one edge."""

    def __init__(self) -> None:
        super().__init__()
        self.strategy = DifferentiableStrategy(BinaryGates())
        self.model = self.strategy.mutate_model(DartsSpace(2, 3, 4, 1, nodes=1)).double()
        self.strategy.architecture.double()


def test_a_step_of_the_weights_computes_only_the_path_and_a_step_of_alpha_changes_no_statistics() -> None:
    torch.manual_seed(0)
    made = Mixed()
    relaxation, architecture, model = made.strategy.relaxation, made.strategy.architecture, made.model
    images, labels = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    weights = list(model.parameters())
    optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=0.1)

    def loss() -> Tensor:
        return functional.cross_entropy(model(images), labels)

    relaxation.begin_step(0.0)
    buffers = [buffer.clone() for buffer in model.buffers()]
    problem = BilevelProblem(loss, loss, weights, made.strategy.arch_parameters(), optimizer, list(model.buffers()), learning_rate=0.1)
    found = architecture_gradient(problem, order=1)
    assert all(float(part.abs().sum()) > 0 for part in found) and all(map(torch.equal, buffers, model.buffers()))

    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for alpha in made.strategy.arch_parameters():
        alpha.requires_grad_(False)
    with relaxation.weight_step(architecture, loss, model, 0.0):
        active = {label: relaxation.drawn(label).active for label in architecture.operations()}
        loss().backward()
        optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    edges = [
        (edge.label, f'cells.{c}.nodes.0.edges.{e}.') for c, cell in enumerate(model.cells) for e, edge in enumerate(cell.nodes[0].edges)
    ]
    assert len(edges) == 6 and any('stem' in name for name in moved)
    for label, prefix in edges:
        chosen = architecture.decisions[label].names[active[label]]
        here = {name for name in before if name.startswith(prefix)}
        assert {name for name in here if name.startswith(f'{prefix}{chosen}.')} == here & moved


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
def test_a_step_of_two_paths_keeps_all_other_probabilities(weight_decay: float) -> None:
    seen: list[tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]] = []

    class Watched(BinaryGates):
        def end_architecture_step(self) -> None:
            labels, architecture = list(self._drawn), self._architecture.value
            stepped = {label: architecture.alpha(label).detach().clone() for label in labels}
            super().end_architecture_step()
            seen.append((stepped, dict(self._drawn), {label: architecture.alpha(label).detach().clone() for label in labels}))

    torch.manual_seed(0)
    strategy = DifferentiableStrategy(Watched('two'), FirstOrder(), learning_rate=0.1, weight_decay=weight_decay, betas=(0.0, 0.999))
    inputs, labels = torch.randn(16, 6, dtype=torch.float64), torch.arange(16) % 2
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=4)
    torch.set_default_dtype(torch.float64)
    try:
        space = TwoLabels()
        space.last = nn.Linear(8, 2)
        fit(strategy, space, (loader, loader), epochs=2, classes=2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(seen) == 8
    for stepped, drawn, after in seen:
        gates, old = drawn['layer'], drawn['layer'].before
        others = [index for index in range(3) if index not in gates.sampled]
        p, q = torch.softmax(old, 0), torch.softmax(after['layer'], 0)
        torch.testing.assert_close(q[others], p[others], rtol=1e-12, atol=1e-14)
        assert not torch.allclose(q[gates.sampled], p[gates.sampled], rtol=1e-6)
        # The published correction: − ln(Σ exp α_new / Σ exp α_old) over the two.
        shift = (stepped['layer'][gates.sampled].exp().sum() / old[gates.sampled].exp().sum()).log()
        torch.testing.assert_close(after['layer'][gates.sampled], stepped['layer'][gates.sampled] - shift, rtol=1e-12, atol=1e-14)


def test_between_steps_the_most_probable_path_is_validated_with_statistics_of_the_batch() -> None:
    made = Mixed()
    made.model.eval()
    norms = [module for module in made.model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    with torch.no_grad(), made.strategy.relaxation.validation_step(made.strategy.architecture, made.model):
        assert all(norm.training for norm in norms)
        made.model(torch.randn(6, 1, 8, 8, dtype=torch.float64))
    assert not any(norm.training for norm in norms) and all(map(torch.equal, before, [norm.running_mean for norm in norms]))
    alpha = ALPHA.clone().requires_grad_()
    with torch.no_grad():
        assert torch.equal(BinaryGates().mix('x', alpha, CANDIDATES, (X,), {}), CANDIDATES[2](X))


def test_alpha_takes_a_step_for_five_of_the_weights_after_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    gradients = FirstOrder.gradients

    def counted(self: FirstOrder, module: object, train: object, valid: object, index: int, shares: object) -> list[Tensor]:
        steps.append(index)
        return gradients(self, module, train, valid, index, shares)

    monkeypatch.setattr(FirstOrder, 'gradients', counted)
    changes = {'search.epochs': 4, 'space.nodes': 1, 'search.batch_size': 8}
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **changes})
    running.search(recipe, 'proxyless', 1, tmp_path / 'out')
    assert steps == [0, 5] * 3  # of six batches in each epoch, and not in the first of four epochs


def test_the_defaults_of_adam_are_published() -> None:
    assert create_strategy('proxyless').optimizer_settings == {'lr': 1e-3, 'betas': (0.0, 0.999), 'weight_decay': 0.0}
