"""DARTS-: what the auxiliary skip connections add, and that they add nothing to the gradient of α."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_darts.search_spaces import S4, DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.moment import Moment
from nni_darts.strategies.relaxations import AuxiliarySkip, Softmax
from nni_darts.strategies.supernet import MixedOperation
from tests.helpers.compiler import needs_kernels
from tests.reference.auxiliary import WithSkip

Made = tuple[DifferentiableStrategy, nn.Module]


def supernet(relaxation: Any, execution: str = 'plain') -> Made:
    strategy = DifferentiableStrategy(relaxation, FirstOrder(), execution=execution)
    torch.manual_seed(0)
    model = strategy.mutate_model(DartsSpace(4, 3, 3, 2, 2)).double()
    strategy.architecture.double()
    torch.manual_seed(1)
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in sorted(model.named_parameters()):
        if 'auxiliary_output' not in name:
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
    return strategy, model


def images() -> Tensor:
    return torch.randn(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def computed(made: Made) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """The output, the gradients of α, and those of the weights by name."""
    strategy, model = made
    output = model(images())
    named = {name: parameter for name, parameter in model.named_parameters()}
    gradients = torch.autograd.grad(output.square().sum() + output.sum(), [*strategy.arch_parameters(), *named.values()], allow_unused=True)
    count = len(strategy.arch_parameters())
    of_weights = {name: torch.zeros_like(named[name]) if part is None else part for name, part in zip(named, gradients[count:])}
    return output.detach(), list(gradients[:count]), of_weights


@pytest.mark.parametrize(
    ('decay', 'epoch', 'expected'),
    [('linear', 0, 2.0), ('linear', 13, 1.48), ('linear', 50, 0.0), ('linear', 55, 0.0), ('cosine', 0, 2.0), ('cosine', 50, 0.0)]
    + [('cosine', epoch, 1 + math.cos(math.pi * epoch / 50)) for epoch in (10, 25, 49)],
)
def test_the_weight_falls_by_epochs_of_the_search(decay: Any, epoch: int, expected: float) -> None:
    relaxation = AuxiliarySkip(2.0, decay)
    relaxation.begin_epoch(Moment(epoch, 50))
    assert relaxation.current == pytest.approx(expected, abs=1e-12)


def test_without_weight_it_is_darts() -> None:
    """Output and all gradients; those of the auxiliary weights are 0."""
    relaxation = AuxiliarySkip()
    made = supernet(relaxation)
    relaxation.current = 0.0
    (output, of_alpha, of_weights), (expected, of_plain_alpha, of_plain) = computed(made), computed(supernet(Softmax()))
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(of_alpha, of_plain_alpha, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for name, gradient in of_plain.items():
        torch.testing.assert_close(of_weights.pop(name), gradient, rtol=1e-9, atol=1e-9)
    assert of_weights and all('auxiliary_output' in name and not gradient.any() for name, gradient in of_weights.items())


def test_it_is_darts_with_a_skip_beside_every_mixture() -> None:
    """Against modules that add β · skip(x) outside; α gets ⟨∂L/∂y, o(x)⟩ through the softmax, and nothing from the auxiliary skip."""
    relaxation = AuxiliarySkip()
    made, plain = supernet(relaxation), supernet(Softmax())
    relaxation.current = 0.7
    mixed = {name: module for name, module in made[1].named_modules() if isinstance(module, MixedOperation)}
    strided = 0
    for name, module in mixed.items():
        parent, _, own = name.rpartition('.')
        skip = module.auxiliary_output if module.auxiliary_output is not None else nn.Identity()
        strided += module.auxiliary_output is not None
        setattr(plain[1].get_submodule(parent), own, WithSkip(plain[1].get_submodule(name), skip, 0.7))
    assert 0 < strided < len(mixed)
    (output, of_alpha, _), (expected, of_plain_alpha, _) = computed(made), computed(plain)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(of_alpha, of_plain_alpha, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('execution', ['joined', 'piecewise', 'compiled'])
def test_every_executor_computes_it(execution: str) -> None:
    if execution == 'compiled':
        needs_kernels()
    results = []
    for way in ('plain', execution):
        relaxation = AuxiliarySkip()
        made = supernet(relaxation, way)
        twins = [parameter for name, parameter in sorted(made[1].named_parameters()) if 'auxiliary_output' in name]
        generator = torch.Generator().manual_seed(9)
        for twin in twins:
            twin.data = torch.randn(twin.shape, generator=generator, dtype=torch.float64)
        relaxation.current = 0.4
        results.append(computed(made))
        assert twins
    (output, of_alpha, of_weights), (expected, of_plain_alpha, of_plain) = results
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    for one, other in [*zip(of_alpha, of_plain_alpha), *((of_weights[name], of_plain[name]) for name in of_plain)]:
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_the_final_cell_has_no_auxiliary_skip() -> None:
    strategy, model = supernet(AuxiliarySkip())
    frozen = model.freeze(strategy.select())
    assert not [name for name, _ in frozen.named_modules() if 'auxiliary' in name]
    label = next(iter(strategy.architecture.operations()))
    assert sum(strategy.probabilities()[label].values()) == pytest.approx(1)


def test_decided_edges_have_none() -> None:
    strategy, model = supernet(AuxiliarySkip())
    (edge,) = [module for name, module in model.named_modules() if isinstance(module, MixedOperation)][:1]
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    strategy.architecture.state.fixed[edge.label] = edge.names.index('max_pool_3x3')
    assert torch.equal(edge(x), edge.max_pool_3x3(x))


def test_a_space_without_skip_connections_is_refused() -> None:
    with pytest.raises(ValueError, match='no choice of this space has a candidate skip_connect'):
        DifferentiableStrategy(AuxiliarySkip()).mutate_model(S4(2, 3, 3))
