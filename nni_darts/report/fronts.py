"""Quality against each cost of all trained networks, the Pareto front among them, and the limits of the recipe. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nni_darts.recipes import Recipe
from nni_darts.recipes.metric import Metric
from nni_darts.report.charts import Run, front_chart

if TYPE_CHECKING:
    from nni_darts.experiment.protocol import Job

__all__ = ['COSTS', 'cost_text', 'cost_title', 'front_charts', 'limits_of', 'networks', 'pareto_front', 'shown_costs']

COSTS = ('parameters', 'multiply_adds', 'latency_ms')
"""The costs by which networks are compared, as far as their results have them."""


def cost_title(measure: str) -> str:
    """Returns the name of a cost in words, with its unit if it has one, such as ``multiply-adds`` or ``latency, ms``."""
    return measure.removesuffix('_ms').replace('_', '-') + (', ms' if measure.endswith('_ms') else '')


def cost_text(value: float | None) -> str:
    """Returns an amount with commas between thousands; a fraction, such as of milliseconds, has four digits at most."""
    return '–' if value is None else f'{value:,.0f}' if float(value).is_integer() or value >= 1e4 else f'{value:,.4g}'


def shown_costs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the costs that a table of networks shows: parameters and multiply-adds, and further costs that any row has."""
    return [name for name in COSTS if name in COSTS[:2] or any(row.get(name) is not None for row in rows)]


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
    mixed. A network without a cost is not compared by it.

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
            costs = {name: result[name] for name in COSTS if name in result}
            if job.stage == stage and job.last and value is not None and costs:
                rows.append({'key': job.key, 'strategy': job.strategy, 'seed': job.seed, 'cell': job.cell, 'value': value, **costs})
        found[stage] = {'networks': rows, 'fronts': _fronts(rows, metric)}
    return found


def _fronts(rows: Sequence[Mapping[str, Any]], metric: Metric) -> dict[str, list[str]]:
    fronts = {}
    for name in COSTS:
        having = [row for row in rows if name in row]
        if having:
            values, maximize = [row['value'] for row in having], metric.optimize_mode == 'maximize'
            fronts[name] = [having[index]['key'] for index in pareto_front([row[name] for row in having], values, maximize=maximize)]
    return fronts


def limits_of(recipe: Recipe, stage: str) -> dict[str, float]:
    """Returns cost → limit for the networks of a stage; none if they are not of the size of ``retrain``, which limits are about."""

    def size(stage: str) -> list[Any]:
        return [getattr(getattr(recipe, stage), name, None) for name in ('channels', 'cells', 'space')]

    return recipe.limits.amounts() if recipe.limits is not None and size(stage) == size('retrain') else {}


def front_charts(summary: Mapping[str, Any], metric: Metric, colours: Mapping[str, int]) -> list[str]:
    """Returns charts of quality against each cost, for each stage that has trained at least two networks.

    Args:
        summary: data of the summary.
        metric: metric of the recipe.
        colours: strategy → number of its colour.
    """
    charts = []
    name, scale = metric.name.replace('_', ' ') + (', %' if metric.percent else ''), 100 if metric.percent else 1
    # Charts of the same cost are neighbours, because the page shows charts in pairs.
    for cost, (stage, part) in itertools.product(COSTS, (('select', 'validation'), ('retrain', 'test'))):
        entry, title = summary['sizes'][stage], cost_title(cost)
        rows = [row for row in entry['networks'] if cost in row]
        runs = [Run(row['key'], row['strategy'], colours[row['strategy']], [(row[cost], scale * row['value'])]) for row in rows]
        if len(runs) > 1:
            charts.append(front_chart(f'{part} {name} against {title}', title, runs, entry['fronts'][cost], entry['limits'].get(cost)))
    return charts
