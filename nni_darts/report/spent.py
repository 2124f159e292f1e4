"""The results of strategies and the cost of reaching them for each seed, as part of an experiment's summary. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nni_darts.recipes.metric import METRICS
from nni_darts.report.plot import Mark, plot

if TYPE_CHECKING:
    from nni_darts.experiment.protocol import Job, Protocol

__all__ = ['plot_spent', 'spent_by_seed']


def spent_by_seed(
    protocol: Protocol, jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]], strategy: str
) -> list[dict[str, float | int]]:
    """Returns for every seed with a trained cell the cost of its trials before the retraining, and the best validation metric of its cells.

    Args:
        jobs: all jobs known so far.
        results: key of a job → its final metric.
    """
    rows: list[dict[str, float | int]] = []
    for seed in protocol.seeds:
        mine = [job for job in jobs if (job.strategy, job.seed) == (strategy, seed) and job.stage != 'retrain' and job.key in results]
        trained = [result['default'] for result in protocol.select_results(strategy, results) if result['seed'] == seed]
        best = protocol.recipe.metric.best(trained, float)
        if best is not None:
            spent = {name: round(sum(results[job.key].get(name, 0) for job in mine), 3) for name in ('seconds', 'passes')}
            rows.append({'seed': seed, 'valid': best, **spent})
    return rows


def plot_spent(summary: Mapping[str, Any]) -> str:
    """Returns the plot of all strategies as SVG; '' if no cell has been trained yet."""
    metric = METRICS[summary['metric']]
    scale = 100 if metric.percent else 1
    marks = [
        Mark(row['strategy'], [entry['seconds'] for entry in row['spent']], [scale * entry['valid'] for entry in row['spent']])
        for row in summary['strategies']
        if row['spent']
    ]
    return plot(marks, cost_label='seconds until the cell is known', value_label=f'validation {metric.label}') if marks else ''
