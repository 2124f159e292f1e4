from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architects import BilevelProblem, architecture_gradient
from tests.reference.second_order import published_clipped_gradient, unrolled_gradient

RATE = 0.05


class Problem:
    """A smooth two-layer network in float64 whose activation is a mixture weighted by softmax(α)."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.weights = [randn(5, 7).requires_grad_(), randn(7).requires_grad_(), randn(7, 3).requires_grad_()]
        self.alphas = [randn(3).requires_grad_(), randn(2).requires_grad_()]
        self.train, self.valid = ((randn(20, 5), randn(20, 3)) for _ in range(2))

    def loss(self, batch: tuple[Tensor, Tensor], weights: list[Tensor], alphas: list[Tensor]) -> Tensor:
        hidden = batch[0] @ weights[0] + weights[1]
        mixture = torch.softmax(alphas[0], 0)
        hidden = mixture[0] * torch.tanh(hidden) + mixture[1] * torch.sigmoid(hidden) + mixture[2] * torch.sin(hidden)
        gate = torch.softmax(alphas[1], 0)
        return functional.mse_loss(gate[0] * (hidden @ weights[2]) + gate[1] * hidden[:, :3], batch[1])

    def closures(self) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        return lambda: self.loss(self.train, self.weights, self.alphas), lambda: self.loss(self.valid, self.weights, self.alphas)

    def optimizer(self, started: bool, **settings: object) -> torch.optim.SGD:
        optimizer = torch.optim.SGD(self.weights, lr=RATE, **settings)
        for _ in range(3 if started else 0):
            optimizer.zero_grad()
            self.loss(self.train, self.weights, self.alphas).backward()
            optimizer.step()
        optimizer.zero_grad()
        for alpha in self.alphas:
            alpha.grad = None
        return optimizer


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    found, expected = (torch.cat([part.flatten() for part in parts]) for parts in (found, expected))
    return float((found - expected).norm() / expected.norm())


RULES = {
    'plain': {},
    'momentum': {'momentum': 0.9},
    'weight decay': {'weight_decay': 0.1},
    'all of DARTS': {'momentum': 0.9, 'weight_decay': 0.1},
    'nesterov': {'momentum': 0.9, 'weight_decay': 0.1, 'nesterov': True},
    'dampening': {'momentum': 0.9, 'dampening': 0.3, 'weight_decay': 0.1},
}


@pytest.mark.parametrize('started', [False, True], ids=['first step', 'later step'])
@pytest.mark.parametrize('rule', RULES)
def test_second_order_is_the_gradient_through_the_real_step(rule: str, started: bool) -> None:
    problem = Problem()
    optimizer = problem.optimizer(started, **RULES[rule])
    settings = {key: value for key, value in RULES[rule].items()}
    buffers = None
    if started and 'momentum' in settings:
        buffers = [optimizer.state[weight]['momentum_buffer'] for weight in problem.weights]
    expected = unrolled_gradient(
        lambda w, a: problem.loss(problem.train, w, a),
        lambda w, a: problem.loss(problem.valid, w, a),
        problem.weights,
        problem.alphas,
        learning_rate=RATE,
        buffers=buffers,
        **settings,
    )
    gradients = {
        (order, hessian): architecture_gradient(
            BilevelProblem(*problem.closures(), problem.weights, problem.alphas, optimizer, learning_rate=RATE),
            order=order,
            hessian=hessian,
        )
        for order, hessian in ((1, 'exact'), (2, 'exact'), (2, 'finite_difference'))
    }
    assert error(gradients[2, 'exact'], expected) <= 1e-8
    assert error(gradients[2, 'finite_difference'], expected) <= 1e-3
    assert error(gradients[1, 'exact'], expected) > 0.02
    first = torch.autograd.grad(problem.closures()[1](), problem.alphas)
    assert all(torch.equal(a, b) for a, b in zip(gradients[1, 'exact'], first))


def test_the_virtual_step_is_the_step_the_optimizer_takes() -> None:
    """Against torch itself: after the virtual step the validation loss is seen at the weights that a real step reaches."""
    problem = Problem()
    optimizer = problem.optimizer(True, momentum=0.9, weight_decay=0.1, nesterov=True)
    seen: list[list[Tensor]] = []

    def valid() -> Tensor:
        seen.append([weight.detach().clone() for weight in problem.weights])
        return problem.closures()[1]()

    architecture_gradient(BilevelProblem(problem.closures()[0], valid, problem.weights, problem.alphas, optimizer, learning_rate=RATE))
    problem.closures()[0]().backward()
    optimizer.step()
    for there, real in zip(seen[0], problem.weights):
        torch.testing.assert_close(there, real, rtol=1e-12, atol=1e-12)


def test_groups_of_the_optimizer_keep_their_own_rules() -> None:
    problem = Problem()
    optimizer = torch.optim.SGD(
        [
            {'params': problem.weights[:1], 'momentum': 0.9, 'nesterov': True},
            {'params': problem.weights[1:], 'weight_decay': 0.1, 'lr': 3 * RATE},
        ],
        lr=RATE,
    )
    rates = [RATE, 3 * RATE, 3 * RATE]

    def total(a: list[Tensor]) -> Tensor:
        w = problem.weights
        gradients = torch.autograd.grad(problem.loss(problem.train, w, a), w, create_graph=True)
        moved = [w[0] - RATE * 1.9 * gradients[0]] + [x - 3 * RATE * (g + 0.1 * x) for x, g in zip(w[1:], gradients[1:])]
        return problem.loss(problem.valid, moved, a)

    expected = list(torch.autograd.grad(total(problem.alphas), problem.alphas))
    for hessian, limit in (('exact', 1e-8), ('finite_difference', 1e-3)):
        found = architecture_gradient(
            BilevelProblem(*problem.closures(), problem.weights, problem.alphas, optimizer, learning_rate=rates), hessian=hessian
        )
        assert error(found, expected) <= limit


class Tied(Problem):
    """A language model in small: the decoder is the embedding, as one tensor."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.weights = [scale * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 4), (4, 4))]
        for weight in self.weights:
            weight.requires_grad_()
        words = torch.randint(9, (4, 30), generator=generator)
        self.train, self.valid = (words[0], words[1]), (words[2], words[3])

    def loss(self, batch: tuple[Tensor, Tensor], weights: list[Tensor], alphas: list[Tensor]) -> Tensor:
        embedding, matrix = weights
        hidden = embedding[batch[0]] @ matrix
        mixture, gate = torch.softmax(alphas[0], 0), torch.softmax(alphas[1], 0)
        hidden = mixture[0] * torch.tanh(hidden) + mixture[1] * torch.sigmoid(hidden) + mixture[2] * hidden
        return functional.cross_entropy((gate[0] * hidden + gate[1] * hidden**2) @ embedding.T, batch[1])


def clipped(problem: Problem, reference: Callable[..., list[Tensor]], clip_norm: float | str, norm: float) -> tuple[float, float]:
    """Errors of the exact product and of the difference against a reference, with weight decay."""
    optimizer = torch.optim.SGD(problem.weights, lr=RATE, weight_decay=0.1)
    expected = reference(
        lambda w, a: problem.loss(problem.train, w, a),
        lambda w, a: problem.loss(problem.valid, w, a),
        problem.weights,
        problem.alphas,
        learning_rate=RATE,
        weight_decay=0.1,
        clip_norm=norm,
    )
    bilevel = BilevelProblem(*problem.closures(), problem.weights, problem.alphas, optimizer, learning_rate=RATE)
    exact, difference = (
        error(architecture_gradient(bilevel, hessian=hessian, clip_norm=clip_norm), expected) for hessian in ('exact', 'finite_difference')
    )
    return exact, difference


@pytest.mark.parametrize('norm', [0.05, 0.25, 1e3], ids=['clipped hard', 'clipped', 'not clipped'])
@pytest.mark.parametrize('make', [Problem, Tied], ids=['untied', 'tied'])
def test_clipping_is_the_gradient_through_the_clipped_step(make: type[Problem], norm: float) -> None:
    exact, difference = clipped(make(), unrolled_gradient, norm, norm)
    assert exact <= 1e-8 and difference <= 1e-3


@pytest.mark.parametrize('scale', [1.0, 0.05], ids=['clipped', 'k above 1'])
def test_published_clipping_is_the_authors_formula(scale: float) -> None:
    problem = Tied(scale)
    gradients = torch.autograd.grad(problem.closures()[0](), problem.weights)
    norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    assert (norm > 0.25) == (scale == 1.0)  # both sides of the limit are seen
    exact, difference = clipped(problem, published_clipped_gradient, 'published', 0.25)
    assert exact <= 1e-8 and difference <= 1e-3
    assert clipped(problem, unrolled_gradient, 'published', 0.25)[0] > 1e-6  # another rule than the exact one


def network() -> tuple[nn.Module, nn.Parameter, Tensor, Tensor]:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3))
    return model.double(), nn.Parameter(torch.zeros(2, dtype=torch.float64)), torch.randn(6, 1, 8, 8).double(), torch.arange(6) % 3


def loss_of(model: nn.Module, alpha: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    weights = torch.softmax(alpha, 0)
    return functional.cross_entropy(weights[0] * model(images) + weights[1] * model(images.flip(3)), labels)


@pytest.mark.parametrize('fail', [False, True], ids=['returns', 'raises'])
@pytest.mark.parametrize('hessian', ['exact', 'finite_difference'])
@pytest.mark.parametrize('order', [1, 2])
def test_everything_is_left_exactly_as_it_was(order: int, hessian: str, fail: bool) -> None:
    model, alpha, images, labels = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss_of(model, alpha, images, labels).backward()
    optimizer.step()
    frozen = model[0].bias.requires_grad_(False)
    calls = 0

    def loss() -> Tensor:
        nonlocal calls
        calls += 1
        if fail and calls == (1 if order == 1 else 3):
            raise KeyboardInterrupt
        return loss_of(model, alpha, images, labels)

    def everything() -> list[Tensor]:
        grads = [parameter.grad for parameter in [*model.parameters(), alpha]]
        state = [optimizer.state[parameter].get('momentum_buffer') for parameter in model.parameters()]
        return [tensor.clone() for tensor in [*model.parameters(), alpha, *model.buffers(), *grads, *state] if tensor is not None]

    before, flags = everything(), [parameter.requires_grad for parameter in [*model.parameters(), alpha]]
    try:
        architecture_gradient(
            BilevelProblem(loss, loss, list(model.parameters()), [alpha], optimizer, buffers=list(model.buffers()), learning_rate=0.1),
            order=order,
            hessian=hessian,
        )
        assert not fail
    except KeyboardInterrupt:
        assert fail
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    assert flags == [parameter.requires_grad for parameter in [*model.parameters(), alpha]]
    assert not frozen.requires_grad


@pytest.mark.parametrize('hessian', ['exact', 'finite_difference'])
def test_repeated_passes_see_the_dropout_masks_and_buffers_of_the_first(hessian: str) -> None:
    model, alpha, images, labels = network()
    masks: dict[str, list[Tensor]] = {'train': [], 'valid': []}
    means: list[Tensor] = []
    part = ''
    model[3].register_forward_hook(lambda module, inputs, output: masks[part].append(output == 0))

    def loss(name: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            nonlocal part
            part = name
            means.append(model[1].running_mean.clone())
            return loss_of(model, alpha, images, labels)

        return run

    generator = torch.get_rng_state()
    architecture_gradient(
        BilevelProblem(loss('train'), loss('valid'), list(model.parameters()), [alpha], buffers=list(model.buffers()), learning_rate=0.1),
        hessian=hessian,
    )
    after = torch.get_rng_state()
    first, *repeats = (masks['train'][i : i + 2] for i in range(0, len(masks['train']), 2))
    assert len(repeats) == (1 if hessian == 'exact' else 2)
    for repeat in repeats:
        assert all(torch.equal(a, b) for a, b in zip(first, repeat))
    assert not torch.equal(first[0], masks['valid'][0])
    assert all(torch.equal(mean, means[0]) for mean in means)
    torch.set_rng_state(generator)  # as if each loss had run once
    loss('train')(), loss('valid')()
    assert torch.equal(torch.get_rng_state(), after)


def test_no_weight_gradients_are_computed_that_are_not_needed() -> None:
    """First order needs none; the ±ε passes need none; the virtual step needs no gradient of α."""
    flags: list[tuple[bool, bool]] = []
    weight, alpha = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)

    def loss() -> Tensor:
        flags.append((weight.requires_grad, alpha.requires_grad))
        return (weight * alpha).square().sum()

    architecture_gradient(BilevelProblem(loss, loss, [weight], [alpha], learning_rate=0.1), order=1)
    assert flags == [(False, True)]
    flags.clear()
    architecture_gradient(BilevelProblem(loss, loss, [weight], [alpha], learning_rate=0.1))
    assert flags == [(True, False), (True, True), (False, True), (False, True)]


def test_edge_cases_give_numbers() -> None:
    weight, alpha, unused = (torch.ones(2, requires_grad=True) for _ in range(3))
    train, valid = lambda: (weight * alpha).sum(), lambda: alpha.square().sum()
    first = architecture_gradient(
        BilevelProblem(train, valid, [weight], [alpha, unused], learning_rate=0.1)
    )  # validation is blind to w: v = 0
    assert torch.equal(first[0], torch.full((2,), 2.0)) and torch.equal(first[1], torch.zeros(2))
    assert torch.equal(architecture_gradient(BilevelProblem(train, valid, [weight], [alpha], learning_rate=0.0))[0], torch.full((2,), 2.0))
    assert torch.equal(architecture_gradient(BilevelProblem(valid, valid, [weight], [alpha], learning_rate=0.1))[0], torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ('settings', 'names'),
    [
        ({'order': 3}, 'order'),
        ({'hessian': 'approximate'}, 'approximate'),
        ({'epsilon': 0.0}, 'epsilon'),
        ({'learning_rate': float('nan')}, 'learning_rate'),
        ({'learning_rate': [0.1]}, 'learning_rate'),
        ({'clip_norm': -1.0}, 'clip_norm must be a number above 0'),
        ({'clip_norm': float('inf')}, 'clip_norm'),
        ({'clip_norm': 'authors'}, "clip_norm must be .*'published'"),
    ],
)
def test_options_outside_their_range(settings: dict, names: str) -> None:
    problem = Problem()
    with pytest.raises(ValueError, match=names):
        rate = settings.pop('learning_rate', RATE)
        architecture_gradient(BilevelProblem(*problem.closures(), problem.weights, problem.alphas, learning_rate=rate), **settings)


def test_other_optimizers_are_refused() -> None:
    problem = Problem()
    adam = torch.optim.Adam(problem.weights)
    with pytest.raises(ValueError, match='Adam'):
        architecture_gradient(BilevelProblem(*problem.closures(), problem.weights, problem.alphas, adam, learning_rate=RATE))
    architecture_gradient(BilevelProblem(*problem.closures(), problem.weights, problem.alphas, adam, learning_rate=RATE), order=1)
    with pytest.raises(ValueError, match='not a parameter'):
        other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
        architecture_gradient(BilevelProblem(*problem.closures(), problem.weights, problem.alphas, other, learning_rate=RATE))
    with pytest.raises(ValueError, match='scalar'):
        architecture_gradient(
            BilevelProblem(lambda: problem.weights[0], problem.closures()[1], problem.weights, problem.alphas, learning_rate=RATE)
        )
    with pytest.raises(ValueError, match='leaf'):
        architecture_gradient(BilevelProblem(*problem.closures(), [problem.weights[0] * 1], problem.alphas, learning_rate=RATE))
