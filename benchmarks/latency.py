"""Predicted against measured latency of random DARTS cells (16 channels, 8 cells, 32×32 pixels, one image, one thread).

The prediction is ``latency_ms`` of a recipe: the sum of the latencies of all operations, measured one by one, and of the fixed parts. The
networks that are measured here are not those from which the fixed parts were found. Rank correlations (Spearman, Kendall) are also given
for parameters and multiply-adds. Their 95 % intervals are from 10,000 bootstrap samples of the cells.

``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2`` in the environment limits torch to AVX2.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr

from benchmarks.common import benchmark, print_table
from nni_darts.recipes import Recipe
from nni_darts.runs.costs import cost_of
from nni_darts.runs.stopwatch import measured_latencies, measured_table, processor_name
from nni_darts.runs.tasks import task_of

_SEED = 1000
"""The cells whose networks give the fixed parts are drawn with another seed."""


@benchmark
@click.option('--cells', 'count', default=30, show_default=True, type=click.IntRange(3), help='Number of random cells.')
@click.option('--rounds', default=25, show_default=True, type=click.IntRange(1), help='Number of measurements of everything.')
def main(count: int, rounds: int, quick: bool, json_file: Path | None) -> None:
    """Compare predicted with measured latencies."""
    sizes = {'retrain.channels': 4, 'retrain.cells': 3} if quick else {'retrain.channels': 16, 'retrain.cells': 8}
    recipe = Recipe.load('cifar10', {**sizes, 'latency.measured': 'torch'})
    data, rng = task_of(recipe).shape(recipe), random.Random(_SEED)
    count, rounds = (5, 3) if quick else (count, rounds)
    cells = [recipe.space.random_cell(rng) for _ in range(count)]
    assert recipe.latency is not None
    table = measured_table(recipe, data, rounds)
    recipe = recipe.model_copy(update={'latency': recipe.latency.with_table(table)})
    costs = [cost_of(cell, recipe, data) for cell in cells]
    times = measured_latencies(cells, recipe, data, rounds)
    measured = np.array([time.median for time in times])
    click.echo(f'{processor_name()}; torch {torch.__version__}; one thread; {count} cells, medians of {rounds}')
    click.echo(f'measured: {measured.min():.2f} to {measured.max():.2f} ms; other parts than operations: {table.fixed_ms:.2f} ms')
    click.echo(f'median interquartile range of a network: {100 * np.median([time.spread / time.median for time in times]):.1f} %')
    rows = []
    for name in ('latency_ms', 'multiply_adds', 'parameters'):
        predicted = np.array([cost[name] for cost in costs])
        errors = predicted / measured - 1
        rows.append(
            {
                'predicted by': name.replace('_', '-'),
                'Spearman': _with_interval(spearmanr, predicted, measured),
                'Kendall': _with_interval(kendalltau, predicted, measured),
                'mean relative error, %': f'{100 * np.abs(errors).mean():.1f}' if name == 'latency_ms' else '–',
                'mean error, %': f'{100 * errors.mean():+.1f}' if name == 'latency_ms' else '–',
            }
        )
    print_table(rows, json_file)


def _with_interval(correlation: object, x: Sequence[float] | np.ndarray, y: np.ndarray) -> str:
    """Returns a correlation with its 95 % interval by the bootstrap."""
    x, rng = np.asarray(x), np.random.default_rng(0)
    drawn = [rng.integers(len(y), size=len(y)) for _ in range(10_000)]
    values = [correlation(x[sample], y[sample]).statistic for sample in drawn]  # type: ignore[operator]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return f'{correlation(x, y).statistic:.2f} ({low:.2f} to {high:.2f})'  # type: ignore[operator]


if __name__ == '__main__':
    main()
