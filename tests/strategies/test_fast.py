"""The fast execution against the plain one: outputs, all gradients and buffers, in float64."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces import S1, S2, S3, S5, DartsSpace
from nni_darts.search_spaces.convolutions import DepthwiseConv2d, PointwiseConv2d
from nni_darts.search_spaces.operations import BatchNorm2d
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.fast import FastCell, convolutional, piecewise
from nni_darts.strategies.fast.partial import partial_channels
from nni_darts.strategies.fast.plan import _stages
from nni_darts.strategies.relaxations import (
    AdversarialSoftmax,
    Concrete,
    Fixed,
    Gumbel,
    PartialChannels,
    PartialSimplex,
    RandomSoftmax,
    ReinMax,
    Sigmoid,
    Simplex,
    SkipDropout,
    Softmax,
)
from tests.helpers.compiler import needs_kernels

SPACES = {
    'darts': lambda: DartsSpace(4, 4, 3, 2, 3),
    'eight channels': lambda: DartsSpace(8, 3, 3, 2, 3),
    'three cells': lambda: DartsSpace(4, 3, 3, 2, 2),
    'two nodes, seven operations': lambda: DartsSpace(3, 3, 3, 2, 2, operations=['sep_conv_7x7', 'conv_7x1_1x7', 'none', 'max_pool_3x3']),
    'imagenet stem': lambda: DartsSpace(4, 3, 3, 2, 2, stem='imagenet'),
    's1': lambda: S1(2, 3, 3, 2),
    's2': lambda: S2(2, 3, 3, 2),
    's3': lambda: S3(2, 3, 3, 2),
    's5': lambda: S5(2, 3, 3, 2),
}

Made = tuple[DifferentiableStrategy, nn.Module]


WAYS = ['joined', 'piecewise', 'compiled', *(['cuda'] if torch.cuda.is_available() else [])]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every executor, the piecewise one in several pieces, the last one smaller; and the joined one on a GPU if there is any."""
    if request.param == 'compiled':
        needs_kernels()
    monkeypatch.setattr(piecewise, 'PIECE_BYTES', 4 * 17 * 17 * 4 * 8 * 4)
    monkeypatch.setitem(PINNED, 'fast', 'joined' if request.param == 'cuda' else request.param)
    torch.set_default_device('cuda' if request.param == 'cuda' else None)
    yield request.param
    torch.set_default_device(None)


PINNED = {'plain': 'plain', 'fast': 'joined'}
"""Which executor a supernet of a test gets."""


def supernet(name: str, execution: str, relaxation: Any = None, dtype: torch.dtype = torch.float64) -> Made:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation or Softmax(), execution=PINNED[execution])
    model = strategy.mutate_model(SPACES[name]()).to(dtype)
    strategy.architecture.to(dtype)
    torch.manual_seed(1)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    return strategy, model


def images(size: int = 17, dtype: torch.dtype = torch.float64) -> Tensor:
    return drawn(6, 2, size, size, seed=2, dtype=dtype)


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers on every device."""
    numbers = torch.randn(*shape, dtype=dtype, device='cpu', generator=torch.Generator('cpu').manual_seed(seed))
    return numbers.to(torch.get_default_device())


def computed(made: Made, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output, and gradients of all α and weights."""
    strategy, model = made
    output = model(x)
    parameters = [*strategy.arch_parameters(), *model.parameters()]
    gradients = torch.autograd.grad(output.square().sum() + output.sum(), parameters, allow_unused=True)
    return output, [torch.zeros_like(p) if gradient is None else gradient for p, gradient in zip(parameters, gradients)]


def everything(made: Made, x: Tensor) -> list[Tensor]:
    """The results, and the buffers as the pass has left them."""
    output, gradients = computed(made, x)
    return [output.detach(), *gradients, *(buffer.clone() for buffer in made[1].buffers())]


def same(one: Made, other: Made, x: Tensor, tolerance: float) -> None:
    alike(everything(one, x), everything(other, x), tolerance)


def alike(one: list[Tensor], other: list[Tensor], tolerance: float) -> None:
    # Relative to the largest value anywhere of its kind: many gradients are zero but for rounding.
    scale = max(float(value.abs().max()) for value in one[1:])
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance * scale)


PASSES = (True, True, False)
"""Whether a pass trains: the second one and the evaluation read the buffers of the first."""


@functools.cache
def plainly(name: str, size: int, device: torch.device) -> tuple[nn.Module, list[list[Tensor]]]:
    """A supernet in the plain execution, and what it computes in each pass: the same for every executor."""
    strategy, model = supernet(name, 'plain')
    return model, [everything((strategy, model.train(train)), images(size)) for train in PASSES]


def is_fast(model: nn.Module) -> bool:
    cells = [isinstance(cell, FastCell) for cell in model.cells]
    assert len(set(cells)) == 1
    return cells[0]


def in_every_way(*cases: tuple[str, Any]) -> pytest.MarkDecorator:
    """Space and relaxation with every executor that can compute them: PC-DARTS has two, ``compiled`` and ``plain``."""
    pairs = [(case, ['compiled'] if isinstance(case[1](), PartialChannels) else WAYS) for case in cases]
    return pytest.mark.parametrize(('name', 'relaxation', 'way'), [(*case, way) for case, ways in pairs for way in ways], indirect=['way'])


@pytest.mark.parametrize(
    ('name', 'size'),
    # What a reduced space leaves out does not depend on the size: the odd one has all that the even one has, and margins.
    [
        *((name, size) for name in ('darts', 'two nodes, seven operations', 'imagenet stem') for size in (8, 17)),
        *((name, 17) for name in ('s1', 's2', 's3', 's5')),
    ],
)
def test_everything_is_equal(name: str, size: int) -> None:
    plain, expected = plainly(name, size, torch.get_default_device())
    strategy, fast = supernet(name, 'fast')
    assert is_fast(fast) and not is_fast(plain)
    assert list(plain.state_dict()) == list(fast.state_dict())
    assert all(map(torch.equal, plain.parameters(), fast.parameters()))
    for train, wanted in zip(PASSES, expected):
        alike(wanted, everything((strategy, fast.train(train)), images(size)), 1e-10)


@pytest.mark.parametrize('threads', [1, 2, 7])
def test_threads_share_images(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _, (wanted, *_) = plainly('three cells', 8, torch.get_default_device())
        alike(wanted, everything(supernet('three cells', 'fast'), images(8)), 1e-10)
    finally:
        torch.set_num_threads(before)


def test_single_precision() -> None:
    """Rounding may put a number on the other side of a ReLU, as it does in the plain execution: that changes gradients by more."""
    errors = []
    for seed in range(5):
        x = drawn(6, 2, 17, 17, seed=seed)
        expected, others = computed(supernet('three cells', 'plain'), x)
        output, gradients = computed(supernet('three cells', 'fast', dtype=torch.float32), x.float())
        assert (output - expected).norm() <= 1e-4 * expected.norm()
        difference = torch.cat([(a - b).flatten() for a, b in zip(gradients, others)])
        errors.append(float(difference.norm() / torch.cat([b.flatten() for b in others]).norm()))
    assert min(errors) <= 1e-5 and sorted(errors)[2] <= 1e-3


@in_every_way(('three cells', Softmax), ('eight channels', lambda: PartialChannels(2)))
def test_gradients_can_be_differentiated_again(name: str, relaxation: Any) -> None:
    """As exact products with second derivatives do; running statistics see the batch once."""
    pair = supernet(name, 'plain', relaxation()), supernet(name, 'fast', relaxation())
    products = []
    for strategy, model in pair:
        weights = [*model.parameters()]
        loss = functional.cross_entropy(model(images(16)), torch.arange(6) % 3)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        vector = [drawn(*weight.shape, seed=5) for weight in weights]
        product = torch.autograd.grad(gradients, [*strategy.arch_parameters(), *weights], vector, materialize_grads=True)
        products.append([*(part.detach() for part in product), *model.buffers()])
    scale = max(float(part.abs().max()) for part in products[0][: len(pair[0][0].arch_parameters())])
    assert scale > 0
    for one, other in zip(*products):
        assert torch.allclose(one.double(), other.double(), rtol=1e-9, atol=1e-9 * scale)


@in_every_way(('three cells', Softmax), ('two nodes, seven operations', Softmax), ('eight channels', lambda: PartialChannels(2)))
def test_checkpoints_change_nothing(name: str, relaxation: Any) -> None:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation(), execution=PINNED['fast'], checkpoint=True)
    model = strategy.mutate_model(SPACES[name]()).double()
    strategy.architecture.to(torch.float64)
    torch.manual_seed(1)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    same(supernet(name, 'plain', relaxation()), (strategy, model), images(), 1e-10)


def test_only_alpha() -> None:
    """The α step computes no gradient of weights."""
    pair = supernet('three cells', 'plain'), supernet('three cells', 'fast')
    results = []
    for strategy, model in pair:
        for weight in model.parameters():
            weight.requires_grad_(False)
        results.append(torch.autograd.grad(model(images()).square().sum(), strategy.arch_parameters()))
    for one, other in zip(*results):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))


def test_without_gradients() -> None:
    plain, fast = supernet('three cells', 'plain'), supernet('three cells', 'fast')
    with torch.no_grad():
        assert torch.allclose(plain[1](images()), fast[1](images()), rtol=1e-10)
    for one, other in zip(plain[1].buffers(), fast[1].buffers()):
        assert torch.allclose(one.double(), other.double(), rtol=1e-10)


def test_sixteen_bits(way: str) -> None:
    """Under autocast the joined execution is about as far from the exact gradient of α as the plain one."""
    if way not in ('joined', 'cuda'):
        _, model = supernet('three cells', 'fast', dtype=torch.float32)
        with torch.autocast('cpu', torch.bfloat16), pytest.raises(ValueError, match=f'execution: {way} does not compute in 16 bits'):
            model(images().float())
        return
    x, labels = images(), torch.arange(6) % 3
    gradients = {}
    for name, execution, dtype in (('exact', 'plain', torch.float64), ('plain', 'plain', torch.float32), ('fast', 'fast', torch.float32)):
        strategy, model = supernet('three cells', execution, dtype=dtype)
        with torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=dtype == torch.float32):
            loss = functional.cross_entropy(model(x.to(dtype)), labels)
        gradients[name] = torch.cat([g.double() for g in torch.autograd.grad(loss, strategy.arch_parameters())])
    exact = gradients.pop('exact')
    errors = {name: float((gradient - exact).norm() / exact.norm()) for name, gradient in gradients.items()}
    assert errors['fast'] <= 2 * errors['plain'] + 0.02 and errors['fast'] < 0.5


def test_one_number_is_no_batch() -> None:
    _, model = supernet('darts', 'fast')
    with pytest.raises(ValueError, match='batch norm cannot train on one number'):
        model(torch.randn(1, 2, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize('train', [True, False])
def test_decided_and_dropped_edges(train: bool) -> None:
    pair = supernet('darts', 'plain'), supernet('darts', 'fast')
    for strategy, model in pair:
        model.train(train)
        names = ['skip_connect', 'max_pool_3x3', 'sep_conv_5x5', 'avg_pool_3x3', 'dil_conv_3x3']
        for position, (label, decision) in enumerate(strategy.architecture.operations().items()):
            if position % 2:
                strategy.architecture.state.fixed[label] = decision.names.index(names[position // 2 % len(names)])
        strategy.architecture.state.dropped = {'normal_input_3': [1], 'normal_input_4': [0, 2, 3], 'reduce_input_3': [2]}
    same(*pair, images(), 1e-10)


def test_everything_decided_as_skip() -> None:
    """A node may then be the very state that another one reads: nothing may be added to it in place."""
    pair = supernet('darts', 'plain'), supernet('darts', 'fast')
    for strategy, _ in pair:
        strategy.architecture.state.fixed = {
            label: decision.names.index('skip_connect') for label, decision in strategy.architecture.operations().items()
        }
        strategy.architecture.state.dropped = {'normal_input_3': [0, 1], 'reduce_input_4': [0, 1, 2]}
    same(*pair, images(), 1e-10)


@pytest.mark.parametrize('relaxation', [Fixed, RandomSoftmax, AdversarialSoftmax, Sigmoid, Simplex, Concrete, ReinMax])
def test_other_weights(relaxation: Any) -> None:
    pair = supernet('three cells', 'plain', relaxation()), supernet('three cells', 'fast', relaxation())
    assert is_fast(pair[1][1])
    x, labels = images(16), torch.arange(6) % 3
    with ExitStack() as stack:
        for strategy, model in pair:
            torch.manual_seed(7)

            def loss(model: nn.Module = model) -> Tensor:
                return functional.cross_entropy(model(x), labels)

            stack.enter_context(strategy.relaxation.weight_step(strategy.architecture, loss, model, 0.5))
        same(*pair, x, 1e-10)


def test_other_mixtures_stay_plain() -> None:
    strategy = DifferentiableStrategy(Gumbel())
    assert not is_fast(strategy.mutate_model(SPACES['darts']()))
    assert strategy.executor_choice.record == {'name': 'plain', 'how': 'only'}


@pytest.mark.parametrize(
    ('relaxation', 'size'),
    [
        (lambda: PartialChannels(1), 17),
        (lambda: PartialChannels(2), 8),
        (lambda: PartialChannels(2), 17),
        (lambda: PartialChannels(4), 17),
        (lambda: PartialChannels(2, edge_weights=False), 17),
        (lambda: PartialSimplex(2), 17),
    ],
)
@pytest.mark.parametrize('way', ['compiled'], indirect=True)
def test_partial_channels(relaxation: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast until something is decided, then plainly."""
    calls: list[Any] = []
    monkeypatch.setattr(convolutional, 'partial_channels', lambda *inputs: calls.append(inputs) or partial_channels(*inputs))
    plain, fast = supernet('eight channels', 'plain', relaxation()), supernet('eight channels', 'fast', relaxation())
    assert is_fast(fast[1])
    for train in (True, False):
        for _, model in (plain, fast):
            model.train(train)
        same(plain, fast, images(size), 1e-10)
    assert len(calls) == 2 * len(fast[1].cells)
    for strategy, _ in (plain, fast):
        label, decision = next(iter(strategy.architecture.operations().items()))
        strategy.architecture.state.fixed[label] = decision.names.index('sep_conv_3x3')
    same(plain, fast, images(size), 1e-10)
    assert len(calls) == 2 * len(fast[1].cells)


def test_frozen_and_copied() -> None:
    (plain_strategy, plain), (strategy, fast) = supernet('three cells', 'plain'), supernet('three cells', 'fast')
    sample = strategy.select()
    assert sample == plain_strategy.select()
    x = images(16)
    assert torch.allclose(copy.deepcopy(fast)(x), plain(x), rtol=1e-10)
    assert torch.allclose(fast.freeze(sample)(x), plain.freeze(sample)(x), rtol=1e-10)


def test_strided_pointwise_convolutions_are_left_to_their_module() -> None:
    def separable(stride: int) -> nn.Sequential:
        return nn.Sequential(nn.ReLU(), DepthwiseConv2d(4, 3), PointwiseConv2d(4, 4, stride), BatchNorm2d(4, affine=False))

    assert len(_stages(separable(1))) == 1 and not _stages(separable(2))


def test_the_execution_is_a_known_one() -> None:
    with pytest.raises(ValueError, match="execution must be fast, compiled, piecewise, joined or plain, not 'quick'"):
        DifferentiableStrategy(execution='quick')


def test_skips_with_dropout_behind_them() -> None:
    """At rate 0 by now, so that nothing is drawn: they are computed by modules of their own."""
    made = [supernet('three cells', execution, SkipDropout(0.5)) for execution in ('plain', 'fast')]
    for strategy, model in made:
        strategy.relaxation.current = 0.0
        assert any(isinstance(module, FastCell) for module in model.modules()) == (strategy.execution != 'plain')
    same(*made, images(), 1e-9)
