"""Compares perturbation-based selection with magnitude where magnitude is known to collapse: space S2, small, on real images.

Three supernets are trained with first-order DARTS. From each of them, one cell is derived by magnitude when the search ends, and another
by perturbation. Both are trained from scratch in the same way, and tested once. S2 has ``skip_connect`` and ``sep_conv_3x3`` on every
edge; DARTS is known to choose too many skip connections there (Zela et al., ICLR 2020; Wang et al., ICLR 2021).

    python -m benchmarks.collapse --data cifar10_10k.npz --work FOLDER

It takes about an hour on one core. After an interruption, run the same command again to continue.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.common import benchmark, print_table, spread, write_images
from nni_darts import Genotype, Recipe
from nni_darts.runs.run import Run
from nni_darts.runs.spec import RunSpec

SETTINGS: dict[str, Any] = {
    'data': {'augment': 'crop-flip', 'pad': 2},  # 16×16 pixels
    'space': {'name': 's2', 'channels': 8, 'cells': 5},
    # α's learning rate is ten times the paper's, because there are 700 steps here instead of 20,000.
    'search': {'epochs': 15, 'batch_size': 64, 'learning_rate': 0.025, 'architecture_learning_rate': 0.003, 'tuning_epochs': 1},
    'retrain': {'channels': 12, 'cells': 5, 'epochs': 20, 'batch_size': 96, 'learning_rate': 0.05},
    'select': {'epochs': 1, 'validation_portion': 0.1},
}
IMAGES = {'train': 6000, 'test': 1000, 'shrink': 2}
SEEDS = (1, 2, 3)
QUICK = {
    'search': {**SETTINGS['search'], 'epochs': 1, 'settings': {'darts-1st+pt': {'batches': 1}}},
    'retrain': {**SETTINGS['retrain'], 'epochs': 1},
    'space': {'name': 's2', 'channels': 2, 'cells': 3},
}


@benchmark
@click.option('--data', required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help='CIFAR-10 as an .npz.')
@click.option('--work', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for everything that is trained.')
def main(data: Path, work: Path, quick: bool, json_file: Path | None) -> None:
    """Compare magnitude with perturbation on the same supernets of S2."""
    images = {**IMAGES, 'train': 200, 'test': 100} if quick else IMAGES
    path = write_images(data, work / 'images.npz', **images)
    settings = {**SETTINGS, **(QUICK if quick else {})}
    recipe = Recipe.from_dict({'name': 'collapse', **settings, 'data': {'name': 'npz', 'path': str(path), **settings['data']}})
    rows = []
    for seed in SEEDS[: 1 if quick else None]:
        folder = work / f'seed-{seed}'
        searched = Run(RunSpec.search(recipe, 'darts-1st+pt', seed), folder / 'search').execute(resume=True).result
        for selection, name in (('magnitude', 'magnitude.json'), ('perturbation', 'genotype.json')):
            genotype = Genotype.from_json((folder / 'search' / name).read_text('utf-8'))
            training = RunSpec.training(recipe, 'retrain', genotype, seed)
            result = Run(training, folder / selection).execute(resume=True).result
            rows.append(
                {
                    'seed': seed,
                    'selection': selection,
                    'skips normal': genotype.count('skip_connect', 'normal'),
                    'skips reduction': genotype.count('skip_connect', 'reduce'),
                    'test %': 100 * result['test_accuracy'],
                    'parameters': result['parameters'],
                    'cell': genotype.code(),
                    'search and tuning s': searched['seconds'],
                    'training s': result['seconds'],
                }
            )
            click.echo(f'seed {seed}, {selection}: {rows[-1]["test %"]:.2f} %', err=True)
    print_table(rows, json_file)
    for selection in ('magnitude', 'perturbation'):
        mine = [row for row in rows if row['selection'] == selection]
        click.echo(f'{selection}: skips {spread([row["skips normal"] for row in mine])}, test {spread([row["test %"] for row in mine])} %')


if __name__ == '__main__':
    main()
