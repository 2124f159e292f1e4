"""Compares all strategies on NAS-Bench-201 at equal cost, by ground truth.

Under each seed, every strategy has the same number of passes over the training data (docs/baselines.md explains what is counted).
Supernets and networks are trained small, on real images. The accuracy of each cell found is the ground truth: the accuracy that the
benchmark's authors measured for it on CIFAR-10 after 200 epochs, not that of our training.

    python -m benchmarks.compare --data cifar10_10k.npz --table nasbench201.csv.gz --work FOLDER --svg docs/compare.svg

After an interruption, run the same command again to continue. Seeds run one after another, so ``--seeds 1`` soon gives a complete,
if small, table.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.common import benchmark, print_table, spread, write_images
from nni_darts import Recipe
from nni_darts.files import write_text
from nni_darts.genotypes.benchmark import Table
from nni_darts.report.plot import Mark, plot
from nni_darts.runs.run import Run
from nni_darts.runs.spec import RunSpec
from nni_darts.strategies import METHODS

SETTINGS: dict[str, Any] = {
    'data': {'augment': 'crop-flip', 'pad': 1},  # 8×8 pixels
    'space': {'name': 'nasbench201', 'channels': 8, 'cells': 3},
    'budget': {'passes': 12},
    'search': {
        'epochs': 1,  # the budget determines the number
        'batch_size': 32,
        'learning_rate': 0.025,
        'architecture_learning_rate': 0.01,  # thirty times the paper's, because there are a few hundred steps here instead of 20,000
        'tuning_epochs': 1,
        'settings': {
            # Each candidate is scored on 128 images, because all images would take more than the budget.
            'darts-1st+pt': {'batches': 4},
            'fixed-alpha+pt': {'batches': 4},
            'enas': {'samples': 50, 'finalists': 5},
            'random-ws': {'samples': 50, 'finalists': 5},
            'evolution': {'population': 4, 'sample': 2, 'parallel': 1},
        },
    },
    'retrain': {'channels': 8, 'cells': 3, 'epochs': 200, 'batch_size': 32, 'learning_rate': 0.1, 'weight_decay': 5e-4},
    'select': {'epochs': 2, 'validation_portion': 0.3},  # 1.4 passes for each cell, by which random search and evolution rank cells
}
IMAGES = {'train': 1000, 'test': 100, 'shrink': 4}
SEEDS = (1, 2, 3)
STRATEGIES = (*(name for name in METHODS if name not in ('fixed-alpha', 'p-darts')), 'darts-1st+pt', 'fixed-alpha+pt')
"""``fixed-alpha`` alone derives the first operation from a uniform α, which is a cell without operations and reaches 10 %. ``p-darts``
needs cells that can be stacked deeper."""
COLUMNS = ('c10_test', 'c100_test', 'in16_test')
PUBLISHED = {
    'darts-1st': 54.30,
    'darts-2nd': 54.30,
    'darts-1st+pt': 88.11,
    'fixed-alpha+pt': 93.80,
    'pc-darts': 93.41,
    'random': 93.83,
    'random-ws': 87.66,
}
"""CIFAR-10 test accuracy in per cent, reported by Wang et al., ICLR 2021, and the benchmark's authors: at full size and other costs."""


@benchmark
@click.option('--data', required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help='CIFAR-10 as an .npz.')
@click.option('--table', required=True, type=click.Path(path_type=Path), help='The benchmark as .csv.gz.')
@click.option('--work', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for everything that is trained.')
@click.option('--seeds', default=len(SEEDS), show_default=True, type=click.IntRange(1, len(SEEDS)), help='How many of them.')
@click.option('--svg', type=click.Path(path_type=Path, dir_okay=False), help='Draw accuracy against seconds there.')
def main(data: Path, table: Path, work: Path, seeds: int, svg: Path | None, quick: bool, json_file: Path | None) -> None:
    """Print the ground truth of the cells that every strategy finds at equal cost."""
    truth = Table.read(table)
    path = write_images(data, work / 'images.npz', **{**IMAGES, **({'train': 100} if quick else {})})
    settings = {**SETTINGS, **({'budget': {'passes': 14}, 'space': {**SETTINGS['space'], 'channels': 4}} if quick else {})}
    recipe = Recipe.from_dict({'name': 'compare', **settings, 'data': {'name': 'npz', 'path': str(path), **settings['data']}})
    found: list[dict[str, Any]] = []
    for seed in SEEDS[: 1 if quick else seeds]:
        for name in STRATEGIES:
            found.append({'strategy': name, 'seed': seed, **search(recipe, name, seed, work / f'{name}-{seed}', truth)})
            click.echo(f'seed {seed}, {name}: {found[-1]["c10_test"]:.2f} %, {found[-1]["cpu_s"]:.0f} s', err=True)
    rows = [_row(name, [entry for entry in found if entry['strategy'] == name]) for name in STRATEGIES]
    print_table(rows, json_file)
    if svg:
        marks = [_mark(name, [entry for entry in found if entry['strategy'] == name]) for name in STRATEGIES]
        svg.write_text(plot(marks, cost_label='processor seconds of search', value_label='CIFAR-10 test accuracy, %') + '\n', 'utf-8')


def search(recipe: Recipe, name: str, seed: int, folder: Path, truth: Table) -> dict[str, Any]:
    """Runs or continues a search. Returns the cell, its ground truth, passes, and processor seconds (unaffected by other programs)."""
    finished, timer, start = folder / 'result.json', folder / 'cpu_seconds', time.process_time()
    before = float(timer.read_text('utf-8')) if timer.exists() else 0.0
    repeated = finished.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        outcome = Run(RunSpec.search(recipe, name, seed), folder).execute(resume=True)
        genotype, result = outcome.genotype, outcome.result
    finally:
        cpu = before if repeated else before + time.process_time() - start
        write_text(timer, f'{cpu:.2f}')
    return {'cell': genotype.code(), **truth.query(genotype), 'passes': result['passes'], 'cpu_s': cpu}


def _row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        'strategy': name,
        'seeds': len(entries),
        **{f'{column} %': spread([entry[column] for entry in entries]) for column in COLUMNS},
        'published c10 %': f'{PUBLISHED[name]:.2f}' if name in PUBLISHED else '',
        'passes': statistics.fmean(entry['passes'] for entry in entries),
        'cpu s': spread([entry['cpu_s'] for entry in entries]),
        'cells': ' '.join(f'`{entry["cell"].removeprefix("nb201.")}`' for entry in entries),
    }


def _mark(name: str, entries: list[dict[str, Any]]) -> Mark:
    return Mark(name, *([entry[key] for entry in entries] for key in ('cpu_s', 'c10_test')))


if __name__ == '__main__':
    main()
