"""Tables of latencies for tests, so that no test depends on the speed of a machine."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import LatencyTable
from nni_darts.runs.edge_shapes import CellShapes, sizes_of_network
from nni_darts.runs.tasks import task_of

__all__ = ['random_table', 'write_table']


def random_table(recipe: Recipe, seed: int = 1) -> LatencyTable:
    """Returns a table with random latencies for everything that a recipe's space needs, with six decimals as measured ones have."""
    rng, data = random.Random(seed), task_of(recipe).shape(recipe)
    table: dict[str, dict[str, float]] = {}
    for name, shape in CellShapes(recipe, data, recipe.space.random_cell(random.Random(0))).needed:
        table.setdefault(name, {})[str(shape)] = round(rng.uniform(0.001, 0.4), 6)
    values: dict[str, Any] = {'operations_ms': table, 'fixed_ms': round(rng.uniform(0.5, 2), 6)}
    return LatencyTable(**values, network=sizes_of_network(recipe, data), processor='a test', threads=1)


def write_table(path: Path, recipe: Recipe, seed: int = 1) -> Path:
    """Writes such a table. Returns its path."""
    random_table(recipe, seed).write(path)
    return path
