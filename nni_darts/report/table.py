"""The results of experiments as a table: intervals over seeds, and every strategy compared with random search. Imports no torch.

A strategy is measured by the validation metric, after the short training, of its best cell under each seed. This is one number for each
seed, so strategies can be compared in pairs over the seeds that they share. Test metrics come from retrainings of one cell; their
spread is that of training, not of searching, so they are not compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_darts.errors import InputError
from nni_darts.recipes.metric import METRICS
from nni_darts.report.fronts import COSTS
from nni_darts.report.spread import Spread, spread

__all__ = ['BASELINE', 'Comparison', 'Row', 'compare', 'rows_of']

BASELINE = 'random'
"""The strategy with which all others are compared."""
LEAST_FOR_WILCOXON = 6
"""The least number of pairs with which the exact two-sided signed-rank test can give a p-value below 0.05: 2 / 2⁶ = 0.031."""
_ROUNDING = 1e-9
"""Differences count as equal if they are no further apart than this fraction of the largest one: a t-test would find rounding errors
significant."""


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two strategies over the seeds that both have.

    Attributes:
        seeds: the shared seeds.
        difference: difference of the metric, strategy − baseline; its spread is that of the paired differences.
        t_p: two-sided p-value of the paired t-test; None with fewer than two pairs, or if all differences are equal.
        wilcoxon_p: two-sided p-value of Wilcoxon's signed-rank test; None with fewer than six pairs that differ.

    Example:
        >>> compare({1: 0.9, 2: 0.8}, {2: 0.7, 3: 0.7}).seeds
        (2,)
    """

    seeds: tuple[int, ...]
    difference: Spread
    t_p: float | None = None
    wilcoxon_p: float | None = None


@dataclass(frozen=True)
class Row:
    """The results of a strategy under one recipe.

    Attributes:
        experiments: ids of the experiments from which the numbers come.
        recipe: name of the recipe.
        strategy: name of the strategy.
        metric: name of the metric.
        seeds: seed → validation metric of its best cell after the short training.
        valid: spread of these metrics over all seeds; None if there is none yet.
        test: spread of the test metric over retrainings of the best cell; None if there is none yet.
        parameters, multiply_adds, latency_ms: costs of the retrained network.
        search_seconds: seconds until the cell is known, mean over the seeds.
        against_baseline: comparison with ``random``; None for ``random`` itself, or if there are no shared seeds.

    Example:
        >>> Row(('abc',), 'digits', 'random', 'accuracy', {1: 0.9}, spread([0.9])).valid.n
        1
    """

    experiments: tuple[str, ...]
    recipe: str
    strategy: str
    metric: str
    seeds: Mapping[int, float]
    valid: Spread | None = None
    test: Spread | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    latency_ms: float | None = None
    search_seconds: float | None = None
    against_baseline: Comparison | None = None


def compare(values: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison | None:
    """Compares two strategies over the seeds that both have. Returns None if they share no seed.

    Args:
        values: seed → metric of the strategy.
        baseline: seed → metric of the baseline.
    """
    seeds = tuple(sorted(values.keys() & baseline.keys()))
    differences = [values[seed] - baseline[seed] for seed in seeds]
    found = spread(differences)
    if found is None:
        return None
    t_p = wilcoxon_p = None
    if max(differences) - min(differences) > _ROUNDING * max(map(abs, differences)):
        from scipy import stats

        t_p = float(stats.ttest_1samp(differences, 0).pvalue)
        unequal = [difference for difference in differences if difference]
        if len(unequal) >= LEAST_FOR_WILCOXON:
            wilcoxon_p = float(stats.wilcoxon(unequal).pvalue)
    return Comparison(seeds, found, t_p, wilcoxon_p)


def rows_of(summaries: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Returns one row for each recipe and strategy. Experiments with the same recipe count as one: their seeds are combined.

    Args:
        summaries: id of an experiment → its summary. If several experiments have the same seed of a strategy, the first one counts.

    Raises:
        InputError: if the experiments have different metrics, which cannot be compared in one table.
    """
    metrics = {str(summary['metric']) for summary in summaries.values()}
    if len(metrics) > 1:
        raise InputError(f'These experiments are judged by different metrics, {" and ".join(sorted(metrics))}: make a table for each.')
    groups: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}  # recipe → strategy → experiment → row of the summary
    for identifier, summary in summaries.items():
        group = groups.setdefault(json.dumps(summary['recipe'], sort_keys=True), {})
        for row in summary['strategies']:
            group.setdefault(row['strategy'], {})[identifier] = {**row, 'tests': _tests(summary, row['strategy'])}
    rows = []
    for recipe, group in groups.items():
        name = str(json.loads(recipe).get('name', ''))
        baseline = _seeds(group[BASELINE]) if BASELINE in group else {}
        for strategy, found in group.items():
            rows.append(_row(name, strategy, metrics.copy().pop(), found, {} if strategy == BASELINE else baseline))
    return rows


def _tests(summary: Mapping[str, Any], strategy: str) -> list[float]:
    """Returns the test metrics of a strategy's retrainings."""
    jobs = [job for job in summary['jobs'] if job['stage'] == 'retrain' and job['strategy'] == strategy]
    return [job['test'] for job in jobs if job['test'] is not None]


def _seeds(found: Mapping[str, Mapping[str, Any]]) -> dict[int, float]:
    """Returns seed → validation metric of a strategy in several experiments."""
    values: dict[int, float] = {}
    for row in found.values():
        for entry in row['by_seed']:
            if entry['valid'] is not None:
                values.setdefault(entry['seed'], entry['valid'])
    return dict(sorted(values.items()))


def _row(recipe: str, strategy: str, metric: str, found: Mapping[str, Mapping[str, Any]], baseline: Mapping[int, float]) -> Row:
    seeds = _seeds(found)
    seconds: dict[int, float] = {}
    for row in found.values():
        for entry in row['spent']:
            seconds.setdefault(entry['seed'], entry['seconds'])
    # Several experiments have each retrained a best cell of their own; the sizes shown are those of the cell with the best validation.
    retrained = [row for row in found.values() if row['tests']]
    best = METRICS[metric].best([row for row in retrained if row['select']], lambda row: row['select']['mean']) or next(iter(retrained), {})
    return Row(
        experiments=tuple(found),
        recipe=recipe,
        strategy=strategy,
        metric=metric,
        seeds=seeds,
        valid=spread(list(seeds.values())),
        test=spread([test for row in found.values() for test in row['tests']]),
        **{cost: best.get(cost) for cost in COSTS},
        search_seconds=statistics.fmean(seconds.values()) if seconds else None,
        against_baseline=compare(seeds, baseline),
    )
