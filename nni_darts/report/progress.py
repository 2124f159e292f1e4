"""Epoch-by-epoch measurements of an experiment's trials: progress of the running trials and learning curves. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nni_darts.recipes.metric import Metric

if TYPE_CHECKING:
    from nni_darts.experiment.protocol import Job

__all__ = ['Epochs', 'learning_curves', 'running_jobs', 'thinned']

Epochs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Key of a job → the measurements of its epochs so far, in order."""

_RECENT = 5
_MOST_POINTS = 120


def running_jobs(jobs: Sequence[Job], busy: Collection[str], epochs: Epochs, metric: Metric) -> list[dict[str, Any]]:
    """Returns a row for each running job: its names, ``epoch`` and ``of``, the last ``valid`` or ``train`` value, ``seconds_left``.

    Args:
        jobs: all jobs known so far.
        busy: keys of the running jobs.
        epochs: measurements of the jobs.
        metric: metric of the recipe.
    """
    rows = []
    for job in jobs:
        if job.key not in busy:
            continue
        records = epochs.get(job.key, ())
        last = records[-1] if records else {}
        row = {**_names(job), 'epoch': last.get('epoch', 0), 'of': last.get('of'), 'seconds_left': _seconds_left(records)}
        row |= {part: metric.of(last, part) for part in ('valid', 'train')}
        row |= {name: last[name] for name in ('decisions', 'of_decisions') if name in last}
        rows.append(row)
    return rows


def learning_curves(jobs: Sequence[Job], epochs: Epochs, metric: Metric) -> list[dict[str, Any]]:
    """Returns for each job with measurements its names, ``part`` (``valid``, or ``train`` if no data is held out) and ``points``.

    Args:
        jobs: all jobs known so far.
        epochs: measurements of the jobs.
        metric: metric of the recipe.
    """
    found = []
    for job in jobs:
        for part in ('valid', 'train'):
            measured = [(record['epoch'], metric.of(record, part)) for record in epochs.get(job.key, ())]
            points = [[epoch, value] for epoch, value in measured if value is not None]
            if points:
                found.append({**_names(job), 'part': part, 'points': thinned(points, _MOST_POINTS)})
                break
    return found


def thinned(points: Sequence[Any], most: int) -> list[Any]:
    """Returns at most ``most`` of the points, evenly spaced, including the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def _names(job: Job) -> dict[str, Any]:
    return {'key': job.key, 'stage': job.stage, 'strategy': job.strategy, 'seed': job.seed, 'cell': job.cell}


def _seconds_left(records: Sequence[Mapping[str, Any]]) -> int | None:
    """Returns the seconds left, from the median duration of the last epochs; None before the first epoch is finished."""
    if not records or 'of' not in records[-1]:
        return None
    lately = [record['seconds'] for record in records[-_RECENT:] if 'seconds' in record]
    return round(statistics.median(lately) * max(0, records[-1]['of'] - records[-1]['epoch'])) if lately else None
