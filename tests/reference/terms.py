"""Terms of the loss of α, written out with numbers of Python instead of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

Table = Sequence[float]


def softmax(alpha: Table) -> list[float]:
    exponentials = [math.exp(value) for value in alpha]
    return [value / sum(exponentials) for value in exponentials]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def beta_term(tables: Sequence[Table], weight: float) -> tuple[float, list[list[float]]]:
    """Mean logsumexp over edges times a weight, and its gradient: softmax(α) over the number of edges."""
    values = [math.log(sum(math.exp(value) for value in table)) for table in tables]
    gradient = [[weight * p / len(tables) for p in softmax(table)] for table in tables]
    return weight * sum(values) / len(tables), gradient


def zero_one_term(tables: Sequence[Table], weight: float, power: int) -> tuple[float, list[list[float]]]:
    """Minus the mean of (σ − ½)² or |σ − ½| over all entries, and its gradient by the derivative of the sigmoid."""
    count = sum(map(len, tables))
    value, gradient = 0.0, []
    for table in tables:
        row = []
        for entry in table:
            s = sigmoid(entry)
            value -= abs(s - 0.5) ** power / count
            outer = 2 * (s - 0.5) if power == 2 else math.copysign(1.0, s - 0.5)
            row.append(-weight * outer * s * (1 - s) / count)
        gradient.append(row)
    return weight * value, gradient


def uniform_divergence(concentration: Table, draws: Sequence[Table]) -> float:
    """KL(Dir(β) ‖ Dir(1)) as the mean of log-density ratios over draws from Dir(β), which is its definition."""
    n = len(concentration)
    log_norm = math.lgamma(sum(concentration)) - sum(map(math.lgamma, concentration))
    uniform = math.lgamma(n)
    return sum(log_norm + sum((b - 1) * math.log(x) for b, x in zip(concentration, draw)) - uniform for draw in draws) / len(draws)
