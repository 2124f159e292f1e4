"""The dominant eigenvalue of ∇²α L_v, which measures how sharp the minimum of α is (Zela et al., ICLR 2020, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nni_darts.strategies.architects.derivatives import require_grad, unchanged

__all__ = ['dominant_eigenvalue', 'largest_eigenvalue']


def dominant_eigenvalue(
    loss: Callable[[], Tensor], weights: Sequence[Tensor], alphas: Sequence[Tensor], *, iterations: int = 30, tolerance: float = 1e-3
) -> float:
    """Returns the largest eigenvalue of the Hessian of a loss with respect to α, without building the Hessian.

    Args:
        loss: closure over the current values of ``weights`` and ``alphas`` that returns a scalar; it is called once.
        weights: the parameters w, for which no gradient is computed.
        alphas: the architecture parameters α, leaf tensors.
        iterations, tolerance: see :func:`largest_eigenvalue`.

    Raises:
        ArithmeticError: if the second derivatives are not finite because the search has diverged.
    """
    sizes = [alpha.numel() for alpha in alphas]
    with unchanged([*weights, *alphas], ()), torch.enable_grad():
        require_grad(weights, False)
        require_grad(alphas, True)
        value = loss()
        found = torch.autograd.grad(value, alphas, create_graph=True, allow_unused=True) if value.requires_grad else ()
        gradients = [gradient for gradient in found if gradient is not None and gradient.requires_grad]
        places = [index for index, gradient in enumerate(found) if gradient is not None and gradient.requires_grad]
        if not gradients:
            return 0.0  # linear in α, or independent of it

        def product(vector: Tensor) -> Tensor:
            parts = [part.view_as(alpha).to(alpha) for part, alpha in zip(vector.split(sizes), alphas)]
            products = torch.autograd.grad(gradients, alphas, [parts[place] for place in places], retain_graph=True, allow_unused=True)
            dense = [torch.zeros_like(alpha) if part is None else part for part, alpha in zip(products, alphas)]
            return torch.cat([part.flatten() for part in dense]).cpu().double()

        return largest_eigenvalue(product, sum(sizes), iterations=iterations, tolerance=tolerance)


# scipy's eigsh tests for convergence only when its short basis is full, so it needs more Hessian-vector products for the same
# tolerance; and it returns no estimate if ``iterations`` products are not enough.
def largest_eigenvalue(product: Callable[[Tensor], Tensor], size: int, *, iterations: int = 30, tolerance: float = 1e-3) -> float:
    """Returns the largest eigenvalue of a symmetric matrix H, from products with it, by Lanczos' method with full reorthogonalisation.

    The start vector is always the same, and the random state does not change.

    Args:
        product: v → H·v, both (size,) in float64 on the CPU.
        size: number of rows of the matrix.
        iterations: largest number of products.
        tolerance: the method stops once ‖H·x − λ·x‖ ≤ tolerance · |λ| for the estimate λ and its unit vector x.

    Raises:
        ArithmeticError: if a product is not finite.
    """
    direction = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis: list[Tensor] = []
    diagonal: list[float] = []
    beside: list[float] = []
    estimate, length = 0.0, float(direction.norm())
    for _ in range(min(iterations, size)):
        basis.append(direction / length)
        image = product(basis[-1])
        if not torch.isfinite(image).all():
            raise ArithmeticError('the second derivatives of the validation loss in α are not finite: the search has diverged')
        diagonal.append(float(basis[-1] @ image))
        known = torch.stack(basis)
        direction = image
        for _ in range(2):  # one pass is not enough in floating point
            direction = direction - known.T @ (known @ direction)
        length = float(direction.norm())
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            off = torch.tensor(beside, dtype=torch.float64)
            matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(matrix)
        estimate = float(values[-1])
        # This is the residual of the estimate, without computing its vector.
        if length * abs(float(vectors[-1, -1])) <= tolerance * abs(estimate) or length < _NOTHING * max(1.0, math.fabs(estimate)):
            break
        beside.append(length)
    return estimate


_NOTHING = 1e-12
