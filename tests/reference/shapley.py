"""Shapley values by enumeration of all orders, or of all subsets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, permutations

Worth = Callable[[frozenset[int]], float]
"""Set of players who are present → score."""


def marginals_in_order(order: Sequence[int], worth: Worth) -> dict[int, float]:
    """Returns by how much the worth of those present falls as players leave in an order."""
    present, found = frozenset(order), {}
    for player in order:
        found[player] = worth(present) - worth(present - {player})
        present -= {player}
    return found


def shapley_by_orders(players: int, worth: Worth) -> list[float]:
    """Returns the mean marginal of each player over all orders."""
    orders = [marginals_in_order(order, worth) for order in permutations(range(players))]
    return [sum(found[player] for found in orders) / len(orders) for player in range(players)]


def shapley_by_subsets(players: int, worth: Worth) -> list[float]:
    """Returns Σ_S |S|! (n − |S| − 1)! / n! · (worth(S ∪ i) − worth(S)) over the subsets S without player i."""
    values = []
    for player in range(players):
        others = [other for other in range(players) if other != player]
        total = 0.0
        for size in range(players):
            factor = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            total += sum(factor * (worth(frozenset((*s, player))) - worth(frozenset(s))) for s in combinations(others, size))
        values.append(total)
    return values
