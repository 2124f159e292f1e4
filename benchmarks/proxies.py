"""Measures how well zero-cost proxies rank random cells of NAS-Bench-201, by ground truth from its table.

Each proxy scores the untrained network of every cell (16 channels, 15 cells, as in the benchmark) on the same 64 CIFAR-10 images.
Spearman's rank correlation with the accuracy that the benchmark's authors measured on CIFAR-10 after 200 epochs is shown beside the
published one.

    python -m benchmarks.proxies --data cifar10_10k.npz --table nasbench201.csv.gz

It takes about 25 minutes on one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from scipy.stats import bootstrap, rankdata, spearmanr

from benchmarks.common import benchmark, print_table
from nni_darts import Recipe
from nni_darts.genotypes.benchmark import Table
from nni_darts.runs.ranking import score_cells
from nni_darts.runs.tasks import task_of
from nni_darts.strategies.trained.prior import PROXY_NAMES, Prior, distinct_cells

SEED = 1
CELLS, QUICK_CELLS = 500, 8
PUBLISHED = {
    'synflow': '0.737',
    'jacob_cov': '0.731',
    'naswot': '≈ 0.77',
    'snip': '0.596',
    'grad_norm': '0.594',
    'parameters': '≈ 0.72 to 0.75',
    'multiply_adds': '≈ 0.72 to 0.75',
    'zen': '≈ 0.35',
}
"""Spearman's correlation on CIFAR-10 over all 15,625 cells. Three decimals: Abdelfattah et al., ICLR 2021; ≈: quoted in later papers."""


@benchmark
@click.option('--data', required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help='CIFAR-10 as an .npz.')
@click.option('--table', required=True, type=click.Path(path_type=Path), help='The benchmark as .csv.gz.')
def main(data: Path, table: Path, quick: bool, json_file: Path | None) -> None:
    """Print the rank correlation of each proxy with the accuracy of trained networks."""
    truth = Table.read(table)
    recipe = Recipe.load('nasbench201', {'data.name': 'npz', 'data.path': str(data), 'data.workers': 0})
    images = task_of(recipe).load(recipe)
    cells = distinct_cells(recipe.space, SEED, QUICK_CELLS if quick else CELLS)
    accuracies = [truth.query(cell)['c10_test'] for cell in cells]
    rows: list[dict[str, Any]] = []
    for name in PROXY_NAMES:
        begun = time.process_time()
        scores = list(score_cells(recipe, images, cells, Prior(proxy=name), SEED))
        seconds = (time.process_time() - begun) / len(cells)
        low, high = _interval(scores, accuracies)
        best = accuracies[max(range(len(cells)), key=lambda index: scores[index])]
        rows.append(
            {
                'proxy': name,
                'Spearman': round(_spearman(scores, accuracies), 3),
                '95 % interval': f'{low:.3f} to {high:.3f}',
                'published': PUBLISHED[name],
                'accuracy of the first %': best,
                'processor seconds a cell': round(seconds, 3),
            }
        )
        click.echo(f'{name}: {rows[-1]["Spearman"]:.3f} over {len(cells)} cells', err=True)
    print_table([{**row, 'Spearman': f'{row["Spearman"]:.3f}'} for row in rows], json_file)


def _spearman(scores: Any, accuracies: Any) -> float:
    # Ranks instead of scores, because a score may be −∞.
    return float(spearmanr(rankdata(scores), rankdata(accuracies)).statistic)


def _interval(scores: Any, accuracies: Any) -> tuple[float, float]:
    """Returns the 95 % interval of the correlation by the percentile bootstrap."""
    pairs = (rankdata(scores), rankdata(accuracies))
    found = bootstrap(pairs, _spearman, paired=True, vectorized=False, n_resamples=999, method='percentile', rng=SEED).confidence_interval
    return float(found.low), float(found.high)


if __name__ == '__main__':
    main()
