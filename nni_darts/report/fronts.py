"""Quality against size of all trained networks, and which of them no other one beats. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nni_darts.recipes.metric import Metric

if TYPE_CHECKING:
    from nni_darts.experiment.protocol import Job

__all__ = ['COSTS', 'networks', 'pareto_front']

COSTS = ('parameters', 'multiply_adds')


def pareto_front(costs: Sequence[float], values: Sequence[float], *, maximize: bool) -> list[int]:
    """Returns the indices of the entries that no cheaper or equally cheap one reaches, the cheapest first.

    Args:
        costs: of each entry, less is better.
        values: of each entry.
        maximize: whether a larger value is the better one.
    """
    sign = -1 if maximize else 1
    order = sorted(range(len(costs)), key=lambda index: (costs[index], sign * values[index]))
    front: list[int] = []
    for index in order:
        if not front or sign * values[index] < sign * values[front[-1]]:
            front.append(index)
    return front


def networks(jobs: Sequence[Job], results: Mapping[str, Mapping[str, Any]], metric: Metric) -> dict[str, dict[str, Any]]:
    """Returns for the stages ``select`` and ``retrain`` all trained ``networks`` and the ``fronts``: name of a cost → keys of jobs.

    The value of a network is its validation in the short training, and its test after the retraining: they are never mixed.

    Args:
        jobs: all that are known.
        results: key of a job → its final metric.
        metric: of the recipe.
    """
    found = {}
    for stage in ('select', 'retrain'):
        rows = []
        for job in jobs:
            result = results.get(job.key, {})
            value = metric.of(result, 'test') if stage == 'retrain' else result.get('default')
            if job.stage == stage and value is not None and all(name in result for name in COSTS):
                sizes = {name: result[name] for name in COSTS}
                rows.append({'key': job.key, 'strategy': job.strategy, 'seed': job.seed, 'cell': job.cell, 'value': value, **sizes})
        values, maximize = [row['value'] for row in rows], metric.optimize_mode == 'maximize'
        fronts = {
            name: [rows[index]['key'] for index in pareto_front([row[name] for row in rows], values, maximize=maximize)] for name in COSTS
        }
        found[stage] = {'networks': rows, 'fronts': fronts}
    return found
