"""The fast execution of the recurrent cell against the plain one: outputs, all gradients and buffers, in float64."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces import DartsRnnSpace, Dropouts
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.fast.recurrent import FastRecurrentCell, Workspace, _node_state, _NodeState
from nni_darts.strategies.relaxations import AdversarialSoftmax, Fixed, Gumbel, RandomSoftmax, Softmax
from tests.helpers.compiler import needs_kernels

Made = tuple[DifferentiableStrategy, nn.Module]
PINNED = {'plain': 'plain', 'fast': 'joined'}
"""Which executor a supernet of a test gets."""
STEPS, BATCH, WORDS, HIDDEN, NODES = 4, 6, 9, 5, 4


@pytest.fixture(autouse=True, params=['compiled', 'joined'])
def _executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every executor of a node."""
    if request.param == 'compiled':
        needs_kernels(torch.float64)
    monkeypatch.setitem(PINNED, 'fast', request.param)


def supernet(execution: str, relaxation: Any = None, dropouts: Dropouts | None = None) -> Made:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation or Softmax(), execution=PINNED[execution])
    model = strategy.mutate_model(DartsRnnSpace(WORDS, HIDDEN, HIDDEN, NODES, dropouts)).double()
    strategy.architecture.double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
        for alpha in strategy.arch_parameters():
            alpha.normal_()
    return strategy, model


def pair(relaxation: Any = Softmax, **settings: Any) -> tuple[Made, Made]:
    made = supernet('plain', relaxation(), **settings), supernet('fast', relaxation(), **settings)
    assert isinstance(made[1][1].cell, FastRecurrentCell) and not isinstance(made[0][1].cell, FastRecurrentCell)
    return made


def text() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(WORDS, (STEPS, BATCH), generator=generator), torch.randn(BATCH, HIDDEN, dtype=torch.float64, generator=generator)


def computed(made: Made) -> list[Tensor]:
    """Outputs, buffers, and gradients of everything."""
    strategy, model = made
    tokens, hidden = text()
    torch.manual_seed(3)  # the dropout masks
    hidden.requires_grad_()
    output = model(tokens, hidden)
    inputs = [*strategy.arch_parameters(), *model.parameters(), hidden]
    loss = output.logits.square().mean() + output.hidden.sum() + output.outputs.square().sum()
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [*output, *model.buffers(), *(torch.zeros_like(p) if gradient is None else gradient for p, gradient in zip(inputs, gradients))]


def same(one: Made, other: Made) -> None:
    for a, b in zip(computed(one), computed(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('dropouts', [Dropouts(), Dropouts(0.2, 0, 0.3, 0, 0.1)], ids=['published', 'no hidden dropout'])
def test_everything_is_equal(dropouts: Dropouts) -> None:
    plain, fast = pair(dropouts=dropouts)
    assert list(plain[1].state_dict()) == list(fast[1].state_dict())
    assert all(map(torch.equal, plain[1].parameters(), fast[1].parameters()))
    for train in (True, True, False):  # the second pass and the evaluation read the buffers of the first
        for _, model in (plain, fast):
            model.train(train)
        same(plain, fast)


def test_decided_and_dropped_edges() -> None:
    made = pair()
    for strategy, _ in made:
        for position, (label, decision) in enumerate(strategy.architecture.operations().items()):
            if position % 2:
                strategy.architecture.state.fixed[label] = 1 + position % (len(decision.names) - 1)
        strategy.architecture.state.dropped = {'recurrent_input_3': [1], 'recurrent_input_4': [0, 3, 2]}
    same(*made)


@pytest.mark.parametrize('relaxation', [Fixed, RandomSoftmax, AdversarialSoftmax])
def test_other_weights(relaxation: Any) -> None:
    made = pair(relaxation)
    tokens, hidden = text()
    with ExitStack() as stack:
        for strategy, model in made:
            torch.manual_seed(7)

            def loss(model: nn.Module = model) -> Tensor:
                return functional.cross_entropy(model(tokens, hidden).logits, tokens.flatten())

            stack.enter_context(strategy.relaxation.weight_step(strategy.architecture, loss, model, 0.5))
        same(*made)


def test_other_mixtures_stay_plain() -> None:
    model = DifferentiableStrategy(Gumbel()).mutate_model(DartsRnnSpace(WORDS, HIDDEN, HIDDEN, NODES))
    assert not isinstance(model.cell, FastRecurrentCell)


def test_frozen_and_copied() -> None:
    (plain_strategy, plain), (strategy, fast) = pair()
    for model in (plain, fast):
        model.eval()
    sample = strategy.select()
    assert sample == plain_strategy.select()
    tokens, hidden = text()
    for made in (copy.deepcopy, lambda model: model.freeze(sample)):
        torch.testing.assert_close(made(fast)(tokens, hidden).logits, made(plain)(tokens, hidden).logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('weight', [0.0, 1.0])
def test_weights_may_vanish(weight: float) -> None:
    """A perturbed softmax is clipped at zero, and a decided edge has one weight."""
    needs_kernels(torch.float64)
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(6, 12), (2, 6), (2, 6)]]
    for index in range(4):
        weights = torch.zeros(2, 4, dtype=torch.float64)
        weights[:, index] = weight
        weights.requires_grad_()
        inputs = [arguments[0], weights, *arguments[1:]]
        one = _NodeState.apply(Workspace(), arguments[0], None, weights, *arguments[1:])
        other = _node_state(arguments[0], None, weights, *arguments[1:])
        torch.testing.assert_close(one, other)
        for a, b in zip(torch.autograd.grad(one.sum(), inputs), torch.autograd.grad(other.sum(), inputs)):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize('masked', [True, False])
def test_the_written_derivatives(masked: bool) -> None:
    """Both derivatives against finite differences."""
    needs_kernels(torch.float64)
    shapes = [(3, 6), (2, 4), (2, 3), (2, 3)]  # matrix, weights of two edges, two states
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.tensor([[0.0, 2.0, 2.0], [2.0, 0.0, 2.0]], dtype=torch.float64) if masked else None

    def node(matrix: Tensor, weights: Tensor, *states: Tensor) -> Tensor:
        return _NodeState.apply(Workspace(), matrix, mask, weights, *states)

    torch.testing.assert_close(node(*arguments), _node_state(arguments[0], mask, *arguments[1:]))
    first, again = (node(*arguments) for _ in range(2))
    gradients = torch.autograd.grad(first.sum(), arguments, retain_graph=True)
    for same in (torch.autograd.grad(first.sum(), arguments), torch.autograd.grad(again.sum(), arguments)):
        assert all(map(torch.allclose, gradients, same))
    assert torch.autograd.gradcheck(node, arguments)
    assert torch.autograd.gradgradcheck(node, arguments)
