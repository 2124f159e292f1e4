"""Measures the speed-up of perturbation-based selection over scoring every candidate with a full plain pass.

It runs one whole selection on a supernet with 16 channels, 8 cells and 7 operations, which has 14 + 3 rounds of decisions in both kinds
of cell. Every decision is scored twice on the same batches, in turn: by ``Perturbation`` and in the plain way, where each candidate
costs a pass in which every edge computes all of its operations and multiplies masked or unchosen ones by zero, as in the authors' code.
The seconds are those of scoring alone. A tuning step between rounds moves the weights as in a real search.

    python -m benchmarks.selection

Times vary between machines; only the ratio is meaningful.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.data import TensorDataset

from benchmarks.common import benchmark, print_table
from nni_darts._nni import DataLoader
from nni_darts.genotypes.convolutional import DARTS_OPERATIONS
from nni_darts.search_spaces import DartsSpace
from nni_darts.strategies import DifferentiableStrategy
from nni_darts.strategies.architects import FirstOrder
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.differentiable import DifferentiableModule
from nni_darts.strategies.selections import Perturbation
from nni_darts.training.run import quiet_lightning
from tests.helpers.fitting import fit
from tests.reference.selection import brute_force_score


class Measured(Perturbation):
    """Scores every decision in both ways, and counts the decisions on which they agree."""

    def __init__(self, layout: torch.memory_format, **settings: Any) -> None:
        super().__init__(**settings)
        self.layout = layout
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self.decisions = self.agreed = self.passes = 0

    def score(self, architecture: Architecture, label: str, candidates: Sequence[int], module: DifferentiableModule) -> list[float]:
        """Returns the scores of the fast way."""
        images, labels = next(module.validation_batches(1)[0])
        data = [(images.contiguous(memory_format=self.layout), labels)]

        def plain() -> list[float]:
            train = self.batch_norm == 'train'
            return [
                brute_force_score(module.model, architecture, data, (label, index, False), self.criterion, train) for index in candidates
            ]

        def fast() -> list[float]:
            return super(Measured, self).score(architecture, label, candidates, module)

        ways = {'plain': plain, 'fast': fast}
        scores = {}
        for name in sorted(ways, reverse=bool(self.decisions % 2)):
            wall, cpu = time.perf_counter(), time.process_time()
            scores[name] = ways[name]()
            self.wall[name] += time.perf_counter() - wall
            self.cpu[name] += time.process_time() - cpu
        self.decisions += 1
        self.passes += len(candidates)
        self.agreed += max(abs(a - b) for a, b in zip(*scores.values())) < 1e-3
        return scores['fast']


@benchmark
@click.option('--batch-size', default=16, show_default=True, help='Images in the one validation batch.')
@click.option('--layout', type=click.Choice(['contiguous', 'channels_last']), default='contiguous', help='Of the plain way.')
def main(batch_size: int, layout: str, quick: bool, json_file: Path | None) -> None:
    """Run one whole perturbation-based selection, fast and plain."""
    torch.manual_seed(0)
    channels, cells, nodes, size = (4, 3, 2, 16) if quick else (16, 8, 4, 32)
    space = DartsSpace(channels, cells, nodes=nodes, operations=DARTS_OPERATIONS[1:])
    memory_format = torch.channels_last if layout == 'channels_last' else torch.contiguous_format
    selection = Measured(memory_format, criterion='loss', batches=1, epochs_between=1)
    strategy = DifferentiableStrategy(architect=FirstOrder(), selection=selection)

    def loader() -> DataLoader:
        return DataLoader(TensorDataset(torch.randn(batch_size, 3, size, size), torch.arange(batch_size) % 10), batch_size=batch_size)

    with quiet_lightning():
        fit(strategy, space, (loader(), loader()), classes=10, learning_rate=0.025, precision='32-true')
    rows = [{'name': name, 'wall_s': selection.wall[name], 'cpu_s': selection.cpu[name]} for name in ('plain', 'fast')]
    print_table(rows, json_file)
    ratio = selection.wall['plain'] / selection.wall['fast']
    click.echo(f'{ratio:.2f} times faster: {selection.decisions} decisions, {selection.passes} candidates scored')
    click.echo(f'scores agree within 0.001 in {selection.agreed} of {selection.decisions} decisions')


if __name__ == '__main__':
    main()
