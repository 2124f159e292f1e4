"""How much faster is a search on two processes that share every batch?

First-order DARTS on the recipe ``digits`` (8×8 images, 8 channels, 3 cells) and at the size of CIFAR-10 (32×32 images of noise, 16
channels, 8 cells), batches of 64: on one process with one thread, on one with two, and on two processes with one thread each. The three
take turns; seconds are medians over all epochs but the first of each run, divided by the steps of an epoch (validation is in them).
``start_s`` is what a run takes besides its epochs: for two processes it is mostly another interpreter that imports torch.

    python -m benchmarks.parallel

Times vary between machines, and with what else runs on them; the ratios are what counts.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.common import benchmark, print_table
from nni_darts import stages
from nni_darts.recipe import Recipe
from nni_darts.tasks import task_of
from nni_darts.training.run import epochs_of

WAYS = ((1, 1), (1, 2), (2, 1))
"""Processes, threads of each."""


def large_recipe(folder: Path, images: int) -> Recipe:
    """Noise in the size of CIFAR-10; half of it trains the weights."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (('train', images), ('test', 10)):
        arrays |= {f'{part}_images': rng.integers(0, 256, (count, 32, 32, 3), np.uint8), f'{part}_labels': np.arange(count) % 10}
    np.savez(folder / 'noise.npz', **arrays)
    changes = {'data': {'name': 'npz', 'path': str(folder / 'noise.npz')}, 'space': {'channels': 16, 'cells': 8}}
    return Recipe.load('digits', changes)


def run(recipe: Recipe, processes: int, threads: int, epochs: int, output: Path) -> tuple[list[float], float]:
    """Seconds of each epoch but the first, and of what is no epoch."""
    search = recipe.search.model_copy(update={'epochs': epochs})
    torch.set_num_threads(processes * threads)  # as many as all processes together get
    started = time.perf_counter()
    stages.search(recipe.model_copy(update={'devices': processes, 'search': search}), 'darts-1st', 1, output)
    seconds = [epoch['seconds'] for epoch in epochs_of(output)]
    return seconds[1:], time.perf_counter() - started - sum(seconds)


@benchmark
@click.option('--repeats', default=3, show_default=True, help='Runs of each kind.')
@click.option('--epochs', default=3, show_default=True, help='Of each run; the first one does not count.')
def main(repeats: int, epochs: int, quick: bool, json_file: Path | None) -> None:
    """One and two processes, on two cores."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipes = {'digits': Recipe.load('digits', {'space.nodes': 2, 'space.channels': 2} if quick else {})}
        if quick:
            repeats, epochs = 1, 2
        else:
            recipes['CIFAR-10 size'] = large_recipe(folder, 256)
        for case, recipe in recipes.items():
            measured: dict[tuple[int, int], tuple[list[float], list[float]]] = {way: ([], []) for way in WAYS}
            for repeat in range(repeats):
                for way in WAYS:
                    seconds, start = run(recipe, *way, epochs, folder / f'{case} {repeat} {way}')
                    measured[way][0].extend(seconds)
                    measured[way][1].append(start)
            steps = math.ceil(len(task_of(recipe).load(recipe).train) // 2 / recipe.search.batch_size)
            alone = statistics.median(measured[WAYS[0]][0])
            for (processes, threads), (seconds, starts) in measured.items():
                median = statistics.median(seconds)
                rows.append(
                    {
                        'name': case,
                        'processes': processes,
                        'threads': threads,
                        'step_s': median / steps,
                        'times': alone / median,
                        'start_s': statistics.median(starts),
                    }
                )
    print_table(rows, json_file)


if __name__ == '__main__':
    main()
