"""Measures the speed-up of a search on two processes that share every batch.

First-order DARTS runs on the recipe ``digits`` (8×8 images, 8 channels, 3 cells) and at the size of CIFAR-10 (32×32 images of noise, 16
channels, 8 cells) with batches of 64: on one process with one thread, on one process with two threads, and on two processes with one
thread each, in turn. Seconds are those of all epochs but the first, divided by the steps of an epoch, and include validation. The table
has their median, their minimum, which other programs have disturbed least, and its ratio to one thread. ``start_s`` is the time of a run
outside its epochs; for two processes, it is mostly that of another interpreter importing torch.

    python -m benchmarks.parallel

With ``--seeds N``, whole searches on the digits are compared between one and two processes instead: the measurements of their last
epochs, and the number of edges that both cells have in common.

    python -m benchmarks.parallel --seeds 4 --strategy darts-2nd

Times vary between machines and with other programs running on them; only the ratios are meaningful.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.common import benchmark, print_table
from nni_darts.recipes import Recipe
from nni_darts.runs.run import Run
from nni_darts.runs.spec import RunSpec
from nni_darts.runs.tasks import task_of
from nni_darts.training.run import epochs_of

WAYS = ((1, 1), (1, 2), (2, 1))
"""Number of processes, and of threads in each."""


def large_recipe(folder: Path, images: int) -> Recipe:
    """Returns a recipe for noise in the size of CIFAR-10; half of it trains the weights."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (('train', images), ('test', 10)):
        arrays |= {f'{part}_images': rng.integers(0, 256, (count, 32, 32, 3), np.uint8), f'{part}_labels': np.arange(count) % 10}
    np.savez(folder / 'noise.npz', **arrays)
    changes = {'data': {'name': 'npz', 'path': str(folder / 'noise.npz')}, 'space': {'channels': 16, 'cells': 8}}
    return Recipe.load('digits', changes)


def run(recipe: Recipe, processes: int, threads: int, epochs: int, output: Path) -> tuple[list[float], float]:
    """Returns the seconds of each epoch but the first, and the seconds outside epochs."""
    search = recipe.search.model_copy(update={'epochs': epochs})
    torch.set_num_threads(processes * threads)  # as many as all processes have in total
    started = time.perf_counter()
    shared = recipe.model_copy(update={'devices': processes, 'search': search})
    Run(RunSpec.search(shared, 'darts-1st', 1), output).execute()
    seconds = [epoch['seconds'] for epoch in epochs_of(output)]
    return seconds[1:], time.perf_counter() - started - sum(seconds)


def compare(recipe: Recipe, strategy: str, seed: int, folder: Path) -> dict[str, Any]:
    """Compares a search on one and on two processes: training loss and validation accuracy of the last epoch, and the cells."""
    row: dict[str, Any] = {'name': strategy, 'seed': seed}
    edges = []
    for devices in (1, 2):
        output = folder / f'{strategy} {seed} {devices}'
        shared = recipe.model_copy(update={'devices': devices})
        genotype = Run(RunSpec.search(shared, strategy, seed), output).execute().genotype
        last = epochs_of(output)[-1]
        row |= {f'loss_{devices}': last['train_loss'], f'valid_%_{devices}': 100 * last['valid_accuracy']}
        edges.append([*genotype.normal, *genotype.reduce])
    places = len(edges[0]) // 2  # each node has two edges
    pairs = [(set(one[2 * node : 2 * node + 2]), set(other[2 * node : 2 * node + 2])) for node in range(places) for one, other in [edges]]
    return {**row, 'edges_in_common': f'{sum(len(one & other) for one, other in pairs)} of {2 * places}'}


def measure(recipe: Recipe, case: str, repeats: int, epochs: int, folder: Path) -> list[dict[str, Any]]:
    """Returns a row for each combination of processes and threads."""
    measured: dict[tuple[int, int], tuple[list[float], list[float]]] = {way: ([], []) for way in WAYS}
    for repeat in range(repeats):
        for way in WAYS:
            seconds, start = run(recipe, *way, epochs, folder / f'{case} {repeat} {way}')
            measured[way][0].extend(seconds)
            measured[way][1].append(start)
    steps = math.ceil(len(task_of(recipe).load(recipe).train) // 2 / recipe.search.batch_size)
    alone = min(measured[WAYS[0]][0])
    rows = []
    for (processes, threads), (seconds, starts) in measured.items():
        row = {'name': case, 'processes': processes, 'threads': threads, 'median_s': statistics.median(seconds) / steps}
        rows.append({**row, 'best_s': min(seconds) / steps, 'times': alone / min(seconds), 'start_s': min(starts)})
    return rows


@benchmark
@click.option('--repeats', default=3, show_default=True, help='Runs of each kind.')
@click.option('--epochs', default=3, show_default=True, help='Of each run; the first one does not count.')
@click.option('--seeds', type=int, help='Number of seeds; compares whole searches instead.')
@click.option('--strategy', default='darts-1st', show_default=True, help='Of these searches.')
def main(repeats: int, epochs: int, seeds: int | None, strategy: str, quick: bool, json_file: Path | None) -> None:
    """Compare one process with two on two cores."""
    digits = Recipe.load('digits', {'space.nodes': 2, 'space.channels': 2, 'search.epochs': 2} if quick else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if seeds:
            rows = [compare(digits, strategy, seed, folder) for seed in range(1, seeds + 1)]
        elif quick:
            rows = measure(digits, 'digits', 1, 2, folder)
        else:
            rows = measure(digits, 'digits', repeats, epochs, folder)
            rows += measure(large_recipe(folder, 256), 'CIFAR-10 size', repeats, epochs, folder)
    print_table(rows, json_file)


if __name__ == '__main__':
    main()
