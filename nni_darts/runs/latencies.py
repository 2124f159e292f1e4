"""The recipe's table of latencies: read, measured once for each machine and size, and added to the costs of the candidates."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from nni_darts.errors import InputError
from nni_darts.files import cache_folder, locked
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.costs import DECIMALS, CostTable
from nni_darts.genotypes.kinds import NasBench201Space
from nni_darts.genotypes.nasbench201 import NasBench201Genotype
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape, LatencyTable
from nni_darts.recipes.limits import LATENCY
from nni_darts.runs.edge_shapes import CellShapes, sizes_of_network
from nni_darts.runs.stopwatch import measured_table, processor_name, sum_of_operations

__all__ = ['latency_table', 'predicted_latency', 'with_latency', 'with_own_table']

_logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 1800
"""Seconds to wait while another process on this machine measures."""

_measured: dict[str, LatencyTable] = {}
"""Digest of machine, settings and sizes → the table that this process uses, even if the file is deleted."""

_cells: dict[str, CellShapes] = {}
"""Space and sizes as text → shapes of the edges, for which a network is built on torch's meta device."""


def with_own_table(recipe: Recipe, data: Any) -> Recipe:
    """Returns a recipe that has its table of latencies, so that wherever the recipe goes, latencies are the same.

    Args:
        recipe: all settings; without ``latency`` it is returned as it is.
        data: as ``task_of(recipe).load(recipe)`` returns it, or its shape.

    Raises:
        InputError: as for :func:`latency_table`.
    """
    if recipe.latency is None:
        return recipe
    return recipe.model_copy(update={'latency': recipe.latency.with_table(latency_table(recipe, data))})


def latency_table(recipe: Recipe, data: Any) -> LatencyTable:
    """Returns the recipe's table of latencies. If it has none yet, the table is measured, or read from where an earlier run put it.

    Tables are kept in ``~/.cache/nni-darts/latency`` for each processor, version of torch, space and size. Only one process on a machine
    measures at a time.

    Args:
        recipe: all settings, with ``latency``.
        data: as for :func:`with_own_table`.

    Raises:
        InputError: if the user's table lacks an operation or a shape, or belongs to a network of other sizes.
    """
    assert recipe.latency is not None
    settings, shapes = recipe.latency, _shapes(recipe, data)
    sizes = sizes_of_network(recipe, data)
    if settings.table is not None:
        try:
            settings.table.check(shapes.needed, sizes, 'latency.table')
        except InputError:
            if settings.measured is None:
                raise
            # The sizes have changed since it was measured.
        else:
            return settings.table
    key = _key(recipe, sizes, [f'{name} {shape}' for name, shape in shapes.needed])
    if key not in _measured:
        _measured[key] = _from_cache(key, recipe, data)
    return _measured[key]


def with_latency(table: CostTable, recipe: Recipe, data: Any) -> CostTable:
    """Returns a table of costs with the latency of all candidates.

    Args:
        table: the other costs.
        recipe: all settings, with ``latency``.
        data: as for :func:`with_own_table`.

    Raises:
        InputError: as for :func:`latency_table`.
    """
    latencies, shapes = latency_table(recipe, data), _shapes(recipe, data)

    def added(label: str, name: str) -> float:
        return round(sum(_of(latencies, name, shape) for shape in shapes.of_label[label]), DECIMALS)

    candidates = {
        label: {name: {**costs, LATENCY: added(label, name)} for name, costs in of_label.items()}
        for label, of_label in table.candidates.items()
    }
    return CostTable({**table.fixed, LATENCY: latencies.fixed_ms}, candidates)


def predicted_latency(genotype: AnyGenotype, recipe: Recipe, data: Any) -> float | None:
    """Returns the predicted latency of a cell's network in milliseconds.

    Args:
        genotype: the cell.
        recipe: all settings.
        data: as for :func:`with_own_table`.

    Returns:
        The sum of the table; None if the recipe has no table yet, or the cell is not one of the recipe's space.
    """
    if recipe.latency is None or recipe.latency.table is None or not _in_space(genotype, recipe):
        return None
    shapes, table = _shapes(recipe, data), recipe.latency.table
    try:
        table.check(shapes.needed, sizes_of_network(recipe, data), 'latency.table')
    except InputError:
        return None  # a training at other sizes than those of the search
    return round(sum_of_operations(genotype, shapes, lambda *key: _of(table, *key)) + table.fixed_ms, DECIMALS)


def _in_space(genotype: AnyGenotype, recipe: Recipe) -> bool:
    if isinstance(recipe.space, NasBench201Space):
        return isinstance(genotype, NasBench201Genotype)
    if not isinstance(genotype, Genotype) or genotype.nodes != recipe.space.nodes:  # type: ignore[union-attr]
        return False
    try:
        recipe.space.sample_of(genotype)
    except ValueError:
        return False
    return True


def _of(table: LatencyTable, name: str, shape: EdgeShape) -> float:
    found = table.of(name, shape)
    assert found is not None  # the table has been checked
    return found


def _shapes(recipe: Recipe, data: Any) -> CellShapes:
    key = repr((recipe.space, sizes_of_network(recipe, data)))
    if key not in _cells:
        _cells[key] = CellShapes(recipe, data, recipe.space.random_cell(random.Random(0)))
    return _cells[key]


def _key(recipe: Recipe, sizes: dict[str, Any], needed: list[str]) -> str:
    assert recipe.latency is not None
    settings = recipe.latency
    parts = (processor_name(), torch.__version__, settings.measured, settings.threads, settings.batch, sizes, needed)
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _from_cache(key: str, recipe: Recipe, data: Any) -> LatencyTable:
    path = _cache(key)
    with _alone(path):
        if path is not None and path.is_file():
            try:
                return LatencyTable.read(path)
            except ValueError as error:
                _logger.warning('latencies are measured again, because %s', error)
        table = measured_table(recipe, data)
        if path is not None:
            try:
                table.write(path)
            except OSError as error:
                _logger.warning('the table of latencies was not kept: %s', error)
        return table


def _cache(key: str) -> Path | None:
    try:
        path = cache_folder() / 'latency' / f'{key}.yml'
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None  # each process measures by itself
    return path


def _alone(path: Path | None) -> AbstractContextManager[None]:
    return nullcontext() if path is None else locked(path.with_name('measuring.lock'), patience=_PATIENCE_SECONDS)
