"""Measures the cells that first-order DARTS and perturbation-based selection find in NAS-Bench-201, by ground truth from its table.

Supernets are trained small, on real images. The accuracy of each cell found is the one that the benchmark's authors measured on
CIFAR-10, CIFAR-100 and ImageNet16-120 after 200 epochs. ``darts-1st`` and ``darts-1st+pt`` derive their cells from the same supernets.

    python -m benchmarks.nasbench201 --data cifar10_10k.npz --table nasbench201.csv.gz --work FOLDER

It takes about 40 minutes on one core. After an interruption, run the same command again to continue.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.common import benchmark, print_table, spread, write_images
from nni_darts import NasBench201Genotype, Recipe
from nni_darts.genotypes.benchmark import Table
from nni_darts.runs.run import Run
from nni_darts.runs.spec import RunSpec

SETTINGS: dict[str, Any] = {
    'data': {'augment': 'crop-flip', 'pad': 2},  # 16×16 pixels
    'space': {'name': 'nasbench201', 'channels': 16, 'cells': 3},
    # α's learning rate is ten times the paper's, because there are 1,400 steps here instead of 20,000.
    'search': {'epochs': 30, 'batch_size': 64, 'learning_rate': 0.025, 'architecture_learning_rate': 0.003, 'tuning_epochs': 2},
    'retrain': {'channels': 16, 'cells': 15, 'epochs': 200, 'batch_size': 256, 'learning_rate': 0.1, 'weight_decay': 5e-4},
    'select': {'epochs': 1, 'validation_portion': 0.1},
}
IMAGES = {'train': 6000, 'test': 1000, 'shrink': 2}
SEEDS = (1, 2, 3)
COLUMNS = ('c10_test', 'c100_test', 'in16_test')
PUBLISHED = {'darts-1st': 54.30, 'darts-1st+pt': 88.11, 'fixed-alpha+pt': 93.80}
"""CIFAR-10 test accuracy in per cent, as reported by Wang et al., ICLR 2021."""


@benchmark
@click.option('--data', required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help='CIFAR-10 as an .npz.')
@click.option('--table', required=True, type=click.Path(path_type=Path), help='The benchmark as .csv.gz.')
@click.option('--work', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for everything that is trained.')
def main(data: Path, table: Path, work: Path, quick: bool, json_file: Path | None) -> None:
    """Print the ground truth of cells found in NAS-Bench-201."""
    truth = Table.read(table)
    images = {**IMAGES, 'train': 200, 'test': 100} if quick else IMAGES
    path = write_images(data, work / 'images.npz', **images)
    settings = dict(SETTINGS)
    if quick:
        settings['search'] = {**SETTINGS['search'], 'epochs': 1, 'tuning_epochs': 1}
    recipe = Recipe.from_dict({'name': 'nasbench201', **settings, 'data': {'name': 'npz', 'path': str(path), **settings['data']}})
    rows: list[dict[str, Any]] = []
    for seed in SEEDS[: 1 if quick else None]:
        for strategy in ('darts-1st+pt', 'fixed-alpha+pt'):
            folder = work / f'{strategy}-{seed}'
            searched = Run(RunSpec.search(recipe, strategy, seed), folder).execute(resume=True).result
            found = {strategy: 'genotype.json'}
            if strategy == 'darts-1st+pt':
                found = {'darts-1st': 'magnitude.json', **found}
            for name, file in found.items():
                genotype = NasBench201Genotype.from_json((folder / file).read_text('utf-8'))
                values = truth.query(genotype)
                rows.append(
                    {
                        'strategy': name,
                        'seed': seed,
                        **{column: values[column] for column in COLUMNS},
                        'cell': genotype.code(),
                        'search and tuning s': searched['seconds'],
                    }
                )
                click.echo(f'seed {seed}, {name}: {values["c10_test"]:.2f} %', err=True)
    rows.sort(key=lambda row: list(PUBLISHED).index(row['strategy']))
    print_table(rows, json_file)
    for name, published in PUBLISHED.items():
        mine = [row for row in rows if row['strategy'] == name]
        click.echo(f'{name}: {spread([row["c10_test"] for row in mine])} %, published {published:.2f} %')


if __name__ == '__main__':
    main()
