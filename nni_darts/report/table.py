"""The results of experiments as a table: intervals over seeds, and every strategy against random search. Imports no torch.

What a strategy is measured by is, for every seed, the validation metric of its best cell after the short training: one number for each
seed, so that strategies can be compared pair by pair over the seeds that they have in common. Test metrics are those of the retrainings
of one cell; their spread is that of training, not of searching, and is not compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_darts.errors import InputError
from nni_darts.recipes.metric import METRICS
from nni_darts.report.spread import Spread, spread

__all__ = ['BASELINE', 'Comparison', 'Row', 'compare', 'rows_of']

BASELINE = 'random'
"""The strategy that every other one is compared with."""
LEAST_FOR_WILCOXON = 6
"""Pairs from which the exact two-sided signed-rank test can give a p-value below 0.05 at all: 2 / 2⁶ = 0.031."""
_ROUNDING = 1e-9
"""Differences that are no further apart than this part of the largest one are equal: a t-test would take rounding for certainty."""


@dataclass(frozen=True)
class Comparison:
    """A strategy against another one, pair by pair over the seeds that both have.

    Attributes:
        seeds: those seeds.
        difference: of the metric, strategy − baseline; its spread is that of the pairs' differences.
        t_p: two-sided p-value of the paired t-test; None with fewer than two pairs, or where all differences are equal.
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
    """A strategy's results under one recipe.

    Attributes:
        experiments: ids of the experiments that the numbers come from.
        recipe: its name.
        strategy: its name.
        metric: name of the metric.
        seeds: seed → validation metric of the best cell after the short training.
        valid: the same over all seeds; None if there is none yet.
        test: test metric of the retrainings of the best cell; None if there is none yet.
        parameters, multiply_adds: of the retrained network.
        search_seconds: until the cell is known, mean over the seeds.
        against_baseline: the comparison with ``random``; None for itself, or where there are no seeds in common.

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
    search_seconds: float | None = None
    against_baseline: Comparison | None = None


def compare(values: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison | None:
    """Compares two strategies over the seeds that both have; None if there is none.

    Args:
        values, baseline: seed → metric.
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
    """One row for each recipe and strategy. Experiments with the same recipe count as one: their seeds are put together.

    Args:
        summaries: id of an experiment → its summary. Of a seed that a strategy has in several experiments the first one counts.

    Raises:
        InputError: if the experiments have different metrics, which no table can compare.
    """
    metrics = {str(summary['metric']) for summary in summaries.values()}
    if len(metrics) > 1:
        raise InputError(f'These experiments are judged by different metrics, {" and ".join(sorted(metrics))}: make a table of each.')
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
    """The test metrics of a strategy's retrainings."""
    jobs = [job for job in summary['jobs'] if job['stage'] == 'retrain' and job['strategy'] == strategy]
    return [job['test'] for job in jobs if job['test'] is not None]


def _seeds(found: Mapping[str, Mapping[str, Any]]) -> dict[int, float]:
    """Seed → validation metric of a strategy in several experiments."""
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
    # Of several experiments each has retrained a best cell of its own; sizes are those of the one that was best by validation.
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
        parameters=best.get('parameters'),
        multiply_adds=best.get('multiply_adds'),
        search_seconds=statistics.fmean(seconds.values()) if seconds else None,
        against_baseline=compare(seeds, baseline),
    )
