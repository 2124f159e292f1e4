"""Aging evolution as the paper's algorithm 1 puts it: a queue of the living, one cell at a time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable


def aging_evolution(
    cells: int,
    population: int,
    sample: int,
    seed: int,
    draw: Callable[[random.Random], Hashable],
    mutate: Callable[[Hashable, random.Random], Hashable],
    train: Callable[[Hashable], float],
) -> list[tuple[Hashable, float]]:
    """All (cell, value) in the order of training. A cell that has been trained is drawn, or mutated from its parent, again."""
    living: deque[tuple[Hashable, float]] = deque()
    history: list[tuple[Hashable, float]] = []
    beginning = random.Random(seed)
    while len(history) < cells:
        if len(history) < population:
            cell = draw(beginning)
            while any(cell == trained for trained, _ in history):
                cell = draw(beginning)
        else:
            rng = random.Random(f'{seed} {len(history) + 1}')
            candidates = rng.choices(list(living), k=sample)
            parent = candidates[0]
            for candidate in candidates[1:]:
                if candidate[1] > parent[1]:
                    parent = candidate
            cell = mutate(parent[0], rng)
            while any(cell == trained for trained, _ in history):
                cell = mutate(parent[0], rng)
            living.popleft()
        living.append((cell, train(cell)))
        history.append(living[-1])
    return history
