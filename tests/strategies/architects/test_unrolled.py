"""The gradient through several steps of SGD, against one graph of all steps and against the steps that SGD takes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies import create_strategy
from nni_darts.strategies.architects import BilevelProblem, SecondOrder, architecture_gradient
from tests.reference.bilevel import gradient_through_steps
from tests.strategies.architects.test_gradient import RATE, RULES, Problem, error


def unrolled(problem: Problem, steps: int, optimizer: torch.optim.SGD | None, **options: object) -> list[Tensor]:
    whole = BilevelProblem(*problem.closures(), problem.weights, problem.alphas, optimizer, learning_rate=RATE)
    return architecture_gradient(whole, hessian='exact', unroll=steps, **options)


@pytest.mark.parametrize('clip_norm', [None, 0.3])
@pytest.mark.parametrize('started', [False, True], ids=['first step', 'later step'])
@pytest.mark.parametrize('rule', RULES)
def test_it_is_the_gradient_of_plain_autograd_through_all_steps(rule: str, started: bool, clip_norm: float | None) -> None:
    problem = Problem()
    optimizer = problem.optimizer(started, **RULES[rule])
    buffers = None
    if started and 'momentum' in RULES[rule]:
        buffers = [optimizer.state[weight]['momentum_buffer'].clone() for weight in problem.weights]
    before = [tensor.detach().clone() for tensor in (*problem.weights, *problem.alphas, *(buffers or []))]
    gradients = []
    for steps in (2, 5):
        expected = gradient_through_steps(
            lambda w, a: problem.loss(problem.train, w, a),
            lambda w, a: problem.loss(problem.valid, w, a),
            problem.weights,
            problem.alphas,
            steps,
            rates=[RATE] * 3,
            buffers=buffers,
            clip_norm=clip_norm,
            **RULES[rule],
        )
        gradients.append(unrolled(problem, steps, optimizer, clip_norm=clip_norm))
        assert error(gradients[-1], expected) <= 1e-10
    assert error(gradients[0], gradients[1]) > 0.01
    after = [*problem.weights, *problem.alphas]
    after += [optimizer.state[weight]['momentum_buffer'] for weight in problem.weights] if buffers else []
    assert all(map(torch.equal, before, after))


def test_one_step_is_the_exact_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_darts.strategies.architects.unrolled import unrolled_gradient
    from nni_darts.strategies.catalogue import SecondOrderSettings

    problem = Problem()
    optimizer = problem.optimizer(True, **RULES['all of DARTS'])
    whole = BilevelProblem(*problem.closures(), problem.weights, problem.alphas, optimizer, learning_rate=RATE)
    found = unrolled_gradient(whole, SecondOrderSettings(hessian='exact'), lambda: None)
    assert error(found, architecture_gradient(whole, hessian='exact')) <= 1e-12


def test_the_validation_loss_is_seen_where_real_steps_lead() -> None:
    problem, seen = Problem(), []
    optimizer = problem.optimizer(True, momentum=0.9, weight_decay=0.1, nesterov=True)

    def valid() -> Tensor:
        seen.append([weight.detach().clone() for weight in problem.weights])
        return problem.closures()[1]()

    whole = BilevelProblem(problem.closures()[0], valid, problem.weights, problem.alphas, optimizer, learning_rate=RATE)
    architecture_gradient(whole, hessian='exact', unroll=3)
    for _ in range(3):
        optimizer.zero_grad()
        problem.closures()[0]().backward()
        optimizer.step()
    for there, real in zip(seen[0], problem.weights, strict=True):
        torch.testing.assert_close(there, real, rtol=1e-12, atol=1e-12)


def test_groups_keep_their_rules_and_weights_that_are_not_reached_stay() -> None:
    problem = Problem()
    aside = torch.ones(3, dtype=torch.float64, requires_grad=True)
    groups = [{'params': problem.weights[:1], 'lr': 3 * RATE, 'maximize': True}, {'params': [*problem.weights[1:], aside]}]
    optimizer = torch.optim.SGD(groups, lr=RATE, weight_decay=0.1)
    train, valid = problem.closures()
    rates = [3 * RATE, RATE, RATE, RATE]

    def total(w: list[Tensor], a: list[Tensor]) -> Tensor:
        return problem.loss(problem.valid, w[:3], a) + (w[3] * a[1].sum()).sum()

    def one(w: list[Tensor], a: list[Tensor]) -> list[Tensor]:
        gradients = torch.autograd.grad(problem.loss(problem.train, w, a), w, create_graph=True)
        return [x - rate * (sign * g + 0.1 * x) for x, g, rate, sign in zip(w, gradients, rates, (-1, 1, 1))]

    moved = one(one(list(problem.weights), problem.alphas), problem.alphas)
    expected = torch.autograd.grad(total([*moved, aside.detach()], problem.alphas), problem.alphas)
    whole = BilevelProblem(
        train,
        lambda: valid() + (aside * problem.alphas[1].sum()).sum(),
        [*problem.weights, aside],
        problem.alphas,
        optimizer,
        learning_rate=rates,
    )
    assert error(architecture_gradient(whole, hessian='exact', unroll=2), list(expected)) <= 1e-10


class Noisy(nn.Module):
    """A network with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)).double()

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        return self.layers(x) * torch.softmax(alpha, 0)


def test_all_steps_have_the_same_dropout_masks_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model, alpha = Noisy(), torch.randn(3, dtype=torch.float64, requires_grad=True)
    x, y = torch.randn(12, 5, dtype=torch.float64), torch.arange(12) % 3
    weights = list(model.parameters())

    def loss() -> Tensor:
        return functional.cross_entropy(model(x, alpha), y)

    torch.manual_seed(4)
    state, buffers = torch.get_rng_state(), [buffer.clone() for buffer in model.buffers()]
    problem = BilevelProblem(loss, lambda: 2 * loss(), weights, [alpha], None, list(model.buffers()), learning_rate=RATE)
    (found,) = architecture_gradient(problem, hessian='exact', unroll=3)
    after = torch.get_rng_state()
    assert all(map(torch.equal, buffers, model.buffers()))

    def functional_loss(w: list[Tensor], a: list[Tensor], restart: bool) -> Tensor:
        if restart:
            torch.set_rng_state(state)
        names = [name for name, _ in model.named_parameters()]
        return functional.cross_entropy(torch.func.functional_call(copy.deepcopy(model), dict(zip(names, w)), (x, a[0])), y)

    torch.set_rng_state(state)
    (expected,) = gradient_through_steps(
        lambda w, a: functional_loss(w, a, True), lambda w, a: 2 * functional_loss(w, a, False), weights, [alpha], 3, rates=[RATE] * 9
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.parametrize('options', [{}, {'hessian': 'exact', 'clip_norm': 'published'}])
def test_several_steps_need_the_exact_product(options: dict) -> None:
    message = 'unroll is 3, and several steps are differentiated exactly: set hessian to exact, and clip_norm to a number or null'
    with pytest.raises(ValueError, match=message):
        SecondOrder(unroll=3, **options)
    with pytest.raises(ValueError, match=message):
        create_strategy('darts-2nd', unroll=3, **options)


def test_the_cost_counts_every_step() -> None:
    assert [SecondOrder(hessian='exact', unroll=steps).passes for steps in (1, 2, 5)] == [4, 7, 16]
