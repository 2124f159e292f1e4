"""Summaries of experiments with given results, created by the function that experiments use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.protocol import Protocol
from nni_darts.recipes import Recipe
from nni_darts.report.summary import summarize


def summary_of(
    valid: Mapping[str, Mapping[int, float]],
    tests: Mapping[str, Sequence[float]] | None = None,
    recipe: str = 'digits',
    *,
    over: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """Returns the summary of an experiment whose short trainings had these values, with one cell for each seed.

    Args:
        valid: strategy → seed → validation metric.
        tests: strategy → test metric of each retraining.
        changes: settings of the recipe.
    """
    loaded = Recipe.load(recipe, {'search.random_samples': 1, **changes})
    tests = tests or {}
    seeds = sorted({seed for values in valid.values() for seed in values})
    protocol = Protocol(loaded, tuple(valid), tuple(seeds), max([1, *map(len, tests.values())]))
    cell, name = loaded.random_cells(1, 1)[0].code(), loaded.metric.name
    results: dict[str, dict[str, Any]] = {}
    for job in protocol.jobs({}, ()):
        if job.stage == 'search' and job.seed in valid[job.strategy]:
            results[job.key] = {'default': 0.0, 'arch': cell, 'seconds': 10.0 * job.seed, 'seed': job.seed}
    for job in protocol.jobs(results, ()):
        if job.stage == 'select' and job.seed in valid[job.strategy]:
            value = valid[job.strategy][job.seed]
            results[job.key] = {'default': value, 'arch': job.arch, 'seconds': 5.0, 'seed': job.seed}
    for job in protocol.jobs(results, ()):
        if job.stage == 'retrain' and len(tests.get(job.strategy, [])) >= job.seed:
            shown = {f'test_{name}': tests[job.strategy][job.seed - 1], 'parameters': 1234, 'multiply_adds': 56789}
            results[job.key] = {'default': 0.5, 'arch': job.arch, 'seconds': 7.0, 'seed': job.seed, **shown}
    return summarize(protocol, protocol.jobs(results, ()), Standing(results), [], over=over)
