from __future__ import annotations

import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.search_spaces import DartsRnnSpace, DartsSpace, Dropouts
from nni_darts.strategies import create_strategy
from nni_darts.strategies.architects import dominant_eigenvalue
from nni_darts.strategies.architects.curvature import largest_eigenvalue
from tests.reference.hessian import dense_hessian
from tests.strategies.architects.test_gradient import Problem


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_eigenvalue_is_that_of_the_dense_hessian(seed: int) -> None:
    problem = Problem(seed)
    _, loss = problem.closures()
    expected = float(torch.linalg.eigvalsh(dense_hessian(loss, problem.alphas))[-1])
    values = [tensor.detach().clone() for tensor in (*problem.weights, *problem.alphas)]
    found = dominant_eigenvalue(loss, problem.weights, problem.alphas, tolerance=1e-12)
    assert found == pytest.approx(expected, rel=1e-9)
    assert all(map(torch.equal, values, (*problem.weights, *problem.alphas)))
    assert all(tensor.requires_grad and tensor.grad is None for tensor in (*problem.weights, *problem.alphas))


def test_a_tensor_that_the_loss_does_not_depend_on_and_one_it_is_linear_in() -> None:
    a, b, c = (torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert dominant_eigenvalue(lambda: 3 * (a**2).sum() + 5 * b[0], [], [c, b, a]) == pytest.approx(6.0)
    assert dominant_eigenvalue(lambda: b.sum(), [], [a, b]) == 0
    assert dominant_eigenvalue(lambda: torch.zeros(()), [], [a]) == 0


@pytest.mark.parametrize('signs', ['mixed', 'negative', 'repeated'])
def test_large_matrices(signs: str) -> None:
    """The largest, not the largest in size; and with far fewer products than the matrix has rows."""
    generator = torch.Generator().manual_seed(1)
    basis, _ = torch.linalg.qr(torch.randn(200, 200, generator=generator, dtype=torch.float64))
    values = {
        'mixed': torch.cat([torch.linspace(-9, 1, 198), torch.tensor([4.0, 5.0])]),
        'negative': torch.cat([torch.linspace(-3, -2, 199), torch.tensor([-1.0])]),
        'repeated': torch.cat([torch.zeros(197), torch.full((3,), 2.0)]),
    }[signs].double()
    matrix = basis @ torch.diag(values) @ basis.T
    products = []

    def product(vector: Tensor) -> Tensor:
        products.append(1)
        return matrix @ vector

    found = largest_eigenvalue(product, 200)
    assert len(products) <= 30
    assert found == pytest.approx(float(values.max()), rel=2e-3)
    assert found == pytest.approx(float(eigsh(matrix.numpy(), k=1, which='LA', return_eigenvectors=False)[0]), rel=2e-3)


def test_derivatives_that_are_not_finite() -> None:
    with pytest.raises(ArithmeticError, match='diverged'):
        largest_eigenvalue(lambda vector: vector * float('nan'), 3)


@pytest.mark.parametrize('execution', ['plain', 'fast'])
@pytest.mark.parametrize('space', ['darts', 'recurrent'])
def test_a_supernet(space: str, execution: str) -> None:
    torch.manual_seed(0)
    strategy = create_strategy('darts-1st', execution=execution)
    if space == 'darts':
        made = DartsSpace(2, 3, 4, 1, nodes=1, operations=['none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3'])
        inputs, labels = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    else:
        made = DartsRnnSpace(7, 5, 5, nodes=2, dropouts=Dropouts(0, 0, 0, 0, 0))
        inputs, labels = torch.randint(7, (3, 4)), torch.arange(12) % 7
    model = strategy.mutate_model(made.double())
    strategy.architecture.double()
    for alpha in strategy.arch_parameters():
        nn.init.normal_(alpha)

    def loss() -> Tensor:
        outputs = model(inputs)
        return functional.cross_entropy(outputs if space == 'darts' else outputs.logits, labels)

    expected = float(torch.linalg.eigvalsh(dense_hessian(loss, strategy.arch_parameters()))[-1])
    found = dominant_eigenvalue(loss, list(model.parameters()), strategy.arch_parameters(), tolerance=1e-10)
    assert found == pytest.approx(expected, rel=1e-6)
