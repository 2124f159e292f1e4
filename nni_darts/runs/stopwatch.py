"""Measures the latency of operations and whole networks on this machine's processor."""

from __future__ import annotations

import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nni_darts.activity import announce
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.costs import DECIMALS
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import EdgeShape, LatencySettings, LatencyTable
from nni_darts.runs.edge_shapes import CellShapes, build_operation, sizes_of_network
from nni_darts.runs.tasks import task_of
from nni_darts.search_spaces import network_from_genotype
from nni_darts.search_spaces.operations import suited_layout

__all__ = ['Time', 'measured_latencies', 'measured_table', 'processor_name', 'sum_of_operations', 'timed']

ROUNDS = 25
"""Number of times that everything is measured, in turns."""
_BLOCK_SECONDS = 1e-3
"""Calls are repeated until they take this long, because a clock needs time itself."""
_WARM_UP = 5
_NETWORKS = 8
"""Number of random networks from which the latency of the fixed parts is found."""


class Time(NamedTuple):
    """Median and interquartile range of repeated measurements, in milliseconds."""

    median: float
    spread: float


def measured_table(recipe: Recipe, data: Any, rounds: int = ROUNDS) -> LatencyTable:
    """Measures each operation of a recipe's space at each shape, and the fixed parts of the network to retrain.

    All operations and some whole networks are called in turns, so that a busy moment of the machine does not fall on a single one. The
    fixed parts take the median, over the networks, of the difference between a network and the sum of its operations.

    Args:
        recipe: all settings; its space is one of image cells, and ``latency`` has the numbers of images and threads.
        data: as ``task_of(recipe).load(recipe)`` returns it, or its shape.
        rounds: number of measurements of everything.
    """
    assert recipe.latency is not None
    settings, space, rng = recipe.latency, recipe.space, random.Random(0)
    cells = [space.random_cell(rng) for _ in range(_NETWORKS)]
    shapes = CellShapes(recipe, data, cells[0])
    with _computing(settings.threads):
        calls = [_operation(recipe, name, shape, settings.batch) for name, shape in shapes.needed]
        calls += [_network(recipe, cell, data, settings.batch) for cell in cells]
        times = timed(calls, rounds)
    of_operations = dict(zip(shapes.needed, times))
    milliseconds = {key: found.median for key, found in of_operations.items()}
    rests = [
        whole.median - sum_of_operations(cell, shapes, lambda *key: milliseconds[key])
        for cell, whole in zip(cells, times[len(shapes.needed) :])
    ]
    quartiles = statistics.quantiles(rests, n=4, method='inclusive')
    return LatencyTable(
        batch=settings.batch,
        threads=settings.threads,
        processor=processor_name(),
        software=f'torch {torch.__version__}',
        date=date.today().isoformat(),
        network=sizes_of_network(recipe, data),
        fixed_ms=max(0.0, quartiles[1]),
        fixed_spread_ms=quartiles[2] - quartiles[0],
        operations_ms=_by_name({key: found.median for key, found in of_operations.items()}),
        spread_ms=_by_name({key: found.spread for key, found in of_operations.items()}),
    )


def measured_latencies(genotypes: Sequence[AnyGenotype], recipe: Recipe, data: Any, rounds: int = ROUNDS) -> list[Time]:
    """Measures the latencies of networks to retrain in turns, with the numbers of images and threads of the recipe's ``latency``.

    Args:
        genotypes: the architectures.
        recipe: all settings.
        data: as for :func:`measured_table`.
        rounds: number of measurements.
    """
    settings = recipe.latency or LatencySettings(measured='torch')
    batch, threads = (settings.batch, settings.threads) if settings.table is None else (settings.table.batch, settings.table.threads or 1)
    with _computing(threads):
        return timed([_network(recipe, genotype, data, batch) for genotype in genotypes], rounds)


def sum_of_operations(genotype: AnyGenotype, shapes: CellShapes, milliseconds: Callable[[str, EdgeShape], float]) -> float:
    """Returns the sum of the latencies of the operations on all edges of a cell, at the shapes of all cells.

    Args:
        genotype: cell of the space.
        shapes: shapes of the edges.
        milliseconds: (operation, shape) → latency.
    """
    edges = [edge for of_kind in genotype.edges().values() for edge in of_kind]
    return round(sum(milliseconds(name, shape) for label, name in edges for shape in shapes.of_label[label]), DECIMALS)


def timed(calls: Sequence[Callable[[], Any]], rounds: int = ROUNDS) -> list[Time]:
    """Measures the duration of calls, in turns after a warm-up.

    Args:
        calls: functions without arguments.
        rounds: number of measurements of each call; a short call is repeated within a measurement.

    With one thread, the clock stands still while the processor works for other programs. On an idle machine this makes no difference.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    repeats = []
    for call in calls:
        for _ in range(_WARM_UP):
            call()
        begun = clock()
        call()
        repeats.append(math.ceil(_BLOCK_SECONDS / max(clock() - begun, 1e-7)))
    values: list[list[float]] = [[] for _ in calls]
    for done in range(rounds):
        announce('measuring latencies', done, rounds)
        for call, count, found in zip(calls, repeats, values):
            begun = clock()
            for _ in range(count):
                call()
            found.append(1000 * (clock() - begun) / count)
    announce('measuring latencies', rounds, rounds)
    return [_summary(found) for found in values]


def processor_name() -> str:
    """Returns the name of this machine's processor, with the instruction set that torch uses."""
    try:
        lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
        name = next(line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    limited = os.environ.get('ONEDNN_MAX_CPU_ISA')
    parts = [name, torch.backends.cpu.get_cpu_capability(), *([f'oneDNN limited to {limited}'] if limited else [])]
    return ', '.join(parts).replace('#', ' ').replace('//', ' ')  # which NNI cannot carry to its trials


def _summary(values: Sequence[float]) -> Time:
    if len(values) < 2:
        return Time(values[0], 0.0)
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return Time(middle, high - low)


def _by_name(values: dict[tuple[str, EdgeShape], float]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for (name, shape), value in values.items():
        table.setdefault(name, {})[str(shape)] = value
    return table


def _operation(recipe: Recipe, name: str, shape: EdgeShape, batch: int) -> Callable[[], Tensor]:
    return _called(build_operation(recipe, name, shape), (batch, *shape[:3]))


def _network(recipe: Recipe, genotype: AnyGenotype, data: Any, batch: int) -> Callable[[], Tensor]:
    options = {name: value for name, value in task_of(recipe).network_options(recipe, 'retrain', data).items() if name != 'auxiliary'}
    return _called(network_from_genotype(genotype, **options), (batch, data.channels, *data.size))


def _called(module: nn.Module, shape: Sequence[int]) -> Callable[[], Tensor]:
    module, images = module.eval(), suited_layout(torch.rand(*shape))

    def call() -> Tensor:
        return module(images)

    return call


@contextmanager
def _computing(threads: int) -> Iterator[None]:
    """Computes without gradients on a number of threads within the block, and leaves torch's random numbers as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(before)
