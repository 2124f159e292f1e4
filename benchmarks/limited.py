"""Measures the cells that strategies find in NAS-Bench-201 below limits on multiply-adds, beside the best cells of the whole table.

``darts-1st`` and ``pc-darts`` search once for each seed, without a limit. The cells within the limits are then read from α, as
``nni-darts derive --limit`` does. ``random`` has the same number of passes over the training data under each limit and each seed, and
draws its cells within the limit. The accuracy of each cell is the ground truth: the accuracy that the benchmark's authors measured for it
on CIFAR-10 after 200 epochs, not that of our training.

    python -m benchmarks.limited --data cifar10_10k.npz --table nasbench201.csv.gz --work FOLDER --svg docs/limited.svg

It takes about a quarter of an hour on one core. After an interruption, run the same command again to continue.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.common import benchmark, print_table, write_images
from benchmarks.compare import search
from benchmarks.nasbench201 import SEEDS
from benchmarks.nasbench201 import SETTINGS as FULL
from nni_darts import NasBench201Genotype, Recipe
from nni_darts.data import ImageShape
from nni_darts.genotypes.benchmark import Table
from nni_darts.report.fronts import pareto_front
from nni_darts.report.plot import Mark, plot
from nni_darts.report.spread import Spread, spread
from nni_darts.report.table import BASELINE, compare
from nni_darts.runs.cost_limits import whole_program
from nni_darts.runs.strongest import Searched
from nni_darts.runs.tasks import task_of

SETTINGS: dict[str, Any] = {
    **FULL,
    'data': {'augment': 'crop-flip', 'pad': 1},  # 8×8 pixels
    'space': {**FULL['space'], 'channels': 8},
    'budget': {'passes': 30},
    'search': {
        **FULL['search'],
        'epochs': 1,  # the budget determines the number
        'architecture_learning_rate': 0.01,  # three times that of benchmarks.nasbench201, because there are a third of its steps
    },
    'retrain': {**FULL['retrain'], 'channels': 8, 'cells': 3},
    'select': {'epochs': 4, 'validation_portion': 0.3},  # 2.8 passes for each cell, by which random search ranks its cells
}
IMAGES = {'train': 2000, 'test': 100, 'shrink': 4}
SUPERNETS = ('darts-1st', 'pc-darts')
SHARES = (0.25, 0.5, 0.75)
"""Portions of all cells that keep the limits, at least. Portions of the range of costs would hardly be limits: all but 25 of the 15,625
cells cost less than 75 % of the range, because costly cells are rare."""
COLUMN = 'c10_test'
SIZE = ImageShape(10, 3, (32, 32))
"""The images of the benchmark. Multiply-adds are shown for its network, which has 15 cells. Ours are smaller, but each operation adds the
same portion of the range of costs in both, so the same cells keep a limit."""


Chosen = Mapping[tuple[float, str], Sequence[Mapping[str, Any]]]
"""(portion of the cells within the limit, strategy) → cells found, one for each seed."""


class Cells(NamedTuple):
    """All cells of the table: cell → multiply-adds of the benchmark's network, and accuracy in per cent."""

    costs: Mapping[NasBench201Genotype, float]
    values: Mapping[NasBench201Genotype, float]

    def within(self, limit: float) -> list[float]:
        """Returns the accuracies of all cells within a limit."""
        return [self.values[cell] for cell, cost in self.costs.items() if cost <= limit]

    def limit(self, share: float) -> float:
        """Returns the smallest limit that at least a portion of the cells keeps."""
        costs = sorted(self.costs.values())
        return costs[round(share * len(costs)) - 1]

    def front(self) -> list[tuple[float, float]]:
        """Returns (multiply-adds, accuracy) of the cells on the Pareto front."""
        costs, values = list(self.costs.values()), list(self.values.values())
        return [(costs[index], values[index]) for index in pareto_front(costs, values, maximize=True)]


@benchmark
@click.option('--data', required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help='CIFAR-10 as an .npz.')
@click.option('--table', required=True, type=click.Path(path_type=Path), help='The benchmark as .csv.gz.')
@click.option('--work', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for everything that is trained.')
@click.option('--svg', type=click.Path(path_type=Path, dir_okay=False), help='Draw accuracy against multiply-adds there.')
def main(data: Path, table: Path, work: Path, svg: Path | None, quick: bool, json_file: Path | None) -> None:
    """Print the ground truth of the cells that strategies find within limits, and of the best cells within them."""
    truth = Table.read(table)
    path = write_images(data, work / 'images.npz', **{**IMAGES, **({'train': 100} if quick else {})})
    settings = SETTINGS | ({'budget': {'passes': 12}} if quick else {})
    recipe = Recipe.from_dict({'name': 'limited', **settings, 'data': {'name': 'npz', 'path': str(path), **settings['data']}})
    cells = _cells(recipe, truth)
    limits = {share: cells.limit(share) for share in SHARES}
    found: list[dict[str, Any]] = []
    for seed in SEEDS[: 1 if quick else None]:
        for entry in _found(recipe, seed, work, truth):
            genotype = NasBench201Genotype.from_code(entry['cell'])
            found.append({**entry, 'seed': seed, 'multiply_adds': cells.costs[genotype]})
            assert found[-1]['multiply_adds'] <= limits[entry['share']]
            click.echo(f'seed {seed}, {entry["strategy"]}, {entry["share"]:.0%} of the cells: {entry[COLUMN]:.2f} %', err=True)
    groups = [(share, name) for share in SHARES for name in (*SUPERNETS, BASELINE)]
    chosen = {group: [entry for entry in found if (entry['share'], entry['strategy']) == group] for group in groups}
    print_table([_row(name, share, cells, chosen) for share, name in groups], json_file)
    if svg:
        marks = [_mark(name, limits[share], entries) for (share, name), entries in chosen.items()]
        front = [point for point in cells.front() if point[0] <= max(limits.values())]
        labels = {'cost_label': 'multiply-adds', 'value_label': 'CIFAR-10 test accuracy, %'}
        svg.write_text(plot(marks, **labels, front=front, limits=list(limits.values())) + '\n', 'utf-8')


def _cells(recipe: Recipe, truth: Table) -> Cells:
    program, space = whole_program(recipe.changed({'retrain': FULL['retrain']}, source='limited'), SIZE), recipe.space
    costs = {cell: program.table.of(program.choices, space.sample_of(cell))['multiply_adds'] for cell in truth}
    return Cells(costs, {cell: truth.query(cell)[COLUMN] for cell in truth})


def _found(recipe: Recipe, seed: int, work: Path, truth: Table) -> list[dict[str, Any]]:
    """Runs or continues the searches under a seed. Returns the cell of each strategy within each limit."""
    program, space = whole_program(recipe, task_of(recipe).shape(recipe)), recipe.space
    costs = sorted(program.table.of(program.choices, space.sample_of(cell))['multiply_adds'] for cell in truth)
    limits = {share: int(costs[round(share * len(costs)) - 1]) for share in SHARES}
    found = []
    for name in SUPERNETS:
        folder = work / f'{name}-{seed}'
        entry = search(recipe, name, seed, folder, truth)
        searched = Searched(folder)
        for share, limit in limits.items():
            cell: Any = searched.within({'multiply_adds': limit}).genotype
            found.append({**entry, 'strategy': name, 'share': share, 'cell': cell.code(), **truth.query(cell)})
    for share, limit in limits.items():
        limited = recipe.changed({'limits': {'multiply_adds': limit}}, source='limited')
        entry = search(limited, BASELINE, seed, work / f'{BASELINE}-{share}-{seed}', truth)
        found.append({'strategy': BASELINE, 'share': share, **entry})
    return found


def _row(name: str, share: float, cells: Cells, chosen: Chosen) -> dict[str, Any]:
    limit = cells.limit(share)
    entries, within = chosen[share, name], cells.within(limit)
    accuracies, random = ({entry['seed']: entry[COLUMN] for entry in chosen[share, one]} for one in (name, BASELINE))
    against = compare(accuracies, random)
    return {
        'multiply-adds at most': f'{limit / 1e6:.2f} M',
        'cells within': f'{len(within):,}',
        'strategy': name,
        'multiply-adds, M': statistics.fmean(entry['multiply_adds'] for entry in entries) / 1e6,
        'CIFAR-10 test %': _interval(spread(list(accuracies.values()))),
        'mean of all within': statistics.fmean(within),
        'best within': max(within),
        'minus random': '' if name == BASELINE or against is None else _interval(against.difference),
        'passes': statistics.fmean(entry['passes'] for entry in entries),
        'cpu s': statistics.fmean(entry['cpu_s'] for entry in entries),
        'cells': ' '.join(f'`{entry["cell"].removeprefix("nb201.")}`' for entry in entries),
    }


def _interval(found: Spread | None) -> str:
    """Returns a mean and its 95 % t interval."""
    assert found is not None
    return f'{found.mean:.2f}' + ('' if found.low is None else f' ({found.low:.2f} to {found.high:.2f})')


def _mark(name: str, limit: float, entries: Sequence[Mapping[str, Any]]) -> Mark:
    costs, values = ([entry[key] for entry in entries] for key in ('multiply_adds', COLUMN))
    return Mark(f'{name} ≤ {limit / 1e6:.1f}M', costs, values, (*SUPERNETS, BASELINE).index(name))


if __name__ == '__main__':
    main()
