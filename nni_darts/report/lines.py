"""The lines of text about a run that appear on a terminal, in a pipe or in a trial's log. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nni_darts.activity import Activity
from nni_darts.recipes.metric import METRICS, Metric

__all__ = ['activity_line', 'decision_line', 'duration', 'epoch_line', 'measured', 'result_lines', 'trial_line', 'warning_line']

_MEASURED = ('train_loss', *(f'{part}_{metric}' for metric in METRICS for part in ('train', 'valid')))
_DECIDED = {'operation': 'keeps', 'topology': 'drops input', 'edge': 'is decided:', 'ranking': 'is'}
"""Kind of a decision → the words between its subject and the choice."""


def warning_line(text: str) -> str:
    """Returns a warning as a line.

    Args:
        text: the warning, without its full stop.
    """
    return f'Warning: {text}.'


def activity_line(activity: Activity) -> str:
    """Returns a line about a lengthy task and its approximate duration."""
    return activity.what + ('' if activity.seconds is None else f', about {duration(activity.seconds)}')


def epoch_line(record: Mapping[str, Any]) -> str:
    """Returns the line that is printed after an epoch, with its measurements.

    Args:
        record: a line of ``metrics.jsonl``.
    """
    parts = [f'epoch {record["epoch"]}/{record["of"]}']
    parts += [f'{name.replace("_", " ")} {record[name]:.4f}' for name in _MEASURED if name in record]
    if 'of_decisions' in record:
        parts.append(f'decisions {record["decisions"]}/{record["of_decisions"]}')
    return '  '.join([*parts, f'{record["seconds"]:.1f} s'])


def decision_line(record: Mapping[str, Any]) -> str:
    """Returns a line about a decision of a selection. It is indented because it belongs to the epoch whose line follows.

    Args:
        record: a line of ``selection.jsonl``.
    """
    margin = '' if record['margin'] is None else f'  margin {record["margin"]:.4f}'
    return f'  {record["label"]} {_DECIDED[record["stage"]]} {record["choice"]}{margin}'


def result_lines(result: Mapping[str, Any], files: Any) -> Iterator[str]:
    """Yields the lines of a run's result, one for each value.

    Args:
        result: result of a stage.
        files: the folder of its files.
    """
    for name, value in result.items():
        metric = METRICS['accuracy'] if name == 'largest_class' else METRICS.get(name.partition('_')[2])
        if metric is not None:
            shown = f'{metric.shown(value)}{" %" if metric.percent else ""}'
        else:
            shown = value if isinstance(value, str) else f'{value:,}' if abs(value) < 1e15 else f'{value:.6g}'
        yield f'{name.replace("_", " "):>16}  {shown}'
    yield f'{"files":>16}  {files}'


def measured(metric: Metric, value: float) -> str:
    """Returns a metric with its unit, such as ``92.14 %``."""
    return f'{metric.shown(value)} {metric.unit}'


def trial_line(key: str, metric: Metric, final: Mapping[str, Any] | None, *, validated: bool = True) -> str:
    """Returns a line about a trial that has ended.

    Args:
        key: key of its job.
        metric: metric of the recipe.
        final: its final result; None if it has none.
        validated: whether data was held out for validation.
    """
    if final is None:
        return f'  {key}: no result'
    test = metric.of(final, 'test')
    shown = [f'validation {measured(metric, final["default"])}'] if validated else []
    shown += [] if test is None else [f'test {measured(metric, test)}']
    return f'  {key}: {", ".join(shown)}'


def duration(seconds: float) -> str:
    """Returns a time span in a few characters and with sufficient precision: ``40 s``, ``12 min``, ``2 h 05``, ``3 d 4 h``."""
    if seconds < 99.5:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 100:
        return f'{minutes} min'
    if minutes < 48 * 60:
        return f'{minutes // 60} h {minutes % 60:02}'
    hours = round(minutes / 60)
    return f'{hours // 24} d {hours % 24} h'
