"""Quality against size of all trained networks, and the Pareto front among them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nni_darts.recipes.metric import Metric

if TYPE_CHECKING:
    from nni_darts.experiment.protocol import Job

__all__ = ['COSTS', 'networks', 'pareto_front']

COSTS = ('parameters', 'multiply_adds')


def pareto_front(costs: Sequence[float], values: Sequence[float], *, maximize: bool) -> list[int]:
    """Returns the indices of the entries on the Pareto front, from the cheapest.

    An entry is on the front if every entry that costs the same or less has a worse value.

    Args:
        costs: cost of each entry; less is better.
        values: value of each entry.
        maximize: whether larger values are better.
    """
    sign = -1 if maximize else 1
    order = sorted(range(len(costs)), key=lambda index: (costs[index], sign * values[index]))
    front: list[int] = []
    for index in order:
        if not front or sign * values[index] < sign * values[front[-1]]:
            front.append(index)
    return front


def networks(jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]], metric: Metric) -> dict[str, dict[str, Any]]:
    """Returns all trained ``networks`` and the ``fronts`` (name of a cost → keys of jobs) for the stages ``select`` and ``retrain``.

    The value of a network is its validation metric after the short training, or its test metric after the retraining; the two are never
    mixed.

    Args:
        jobs: all jobs known so far.
        results: key of a job → its final metric.
        metric: metric of the recipe.
    """
    found = {}
    for stage in ('select', 'retrain'):
        rows = []
        for job in jobs:
            result = results.get(job.key, {})
            value = metric.of(result, 'test') if stage == 'retrain' else result.get('default')
            if job.stage == stage and job.last and value is not None and all(name in result for name in COSTS):
                sizes = {name: result[name] for name in COSTS}
                rows.append({'key': job.key, 'strategy': job.strategy, 'seed': job.seed, 'cell': job.cell, 'value': value, **sizes})
        values, maximize = [row['value'] for row in rows], metric.optimize_mode == 'maximize'
        fronts = {
            name: [rows[index]['key'] for index in pareto_front([row[name] for row in rows], values, maximize=maximize)] for name in COSTS
        }
        found[stage] = {'networks': rows, 'fronts': fronts}
    return found
