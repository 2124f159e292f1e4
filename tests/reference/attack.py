"""The attack of SDARTS-ADV as its authors wrote it: projected gradient ascent on the rows of a table of weights, in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def project(row: list[float]) -> list[float]:
    """Clip at 0 and divide by the sum; where nothing is above 0 the (first) largest entry becomes 1."""
    clipped = [max(value, 0.0) for value in row]
    total = sum(clipped)
    if total == 0:
        return [float(index == row.index(max(row))) for index in range(len(row))]
    return [value / total for value in clipped]


def linf_pgd(loss: Callable[[Tensor], Tensor], centre: Tensor, epsilon: float, steps: int, offset: Tensor | None) -> Tensor:
    """Moves a table of weights (rows, candidates) by steps of 2·ε / steps along the sign of the gradient, each back into the ball and onto
    the simplex.

    Args:
        loss: of a table.
        centre: softmax(α).
        offset: where the attack begins, relative to the centre; None begins there.

    Returns:
        The table with the higher loss of the attacked and the original one.
    """

    def projected(table: Tensor) -> Tensor:
        return torch.tensor([project(row) for row in table.tolist()], dtype=torch.float64)

    table = centre.clone() if offset is None else projected(centre + offset)
    for _ in range(steps):
        leaf = table.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        for row in range(len(table)):
            for column in range(table.shape[1]):
                moved = float(table[row, column]) + 2 * epsilon / steps * float(gradient[row, column].sign())
                low, high = float(centre[row, column]) - epsilon, float(centre[row, column]) + epsilon
                table[row, column] = min(max(moved, low), high)
        table = projected(table)
    return table if float(loss(table)) > float(loss(centre)) else centre
