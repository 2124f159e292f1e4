"""A page that opens NNI's list of trials with the columns that identify a trial. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from nni_darts.files import write_text
from nni_darts.recipes.metric import Metric
from nni_darts.report.pages import render

__all__ = ['TRIALS', 'chosen_columns', 'write_trials']

TRIALS = 'trials.html'

_PARAMETERS = ('stage', 'strategy', 'seed', 'arch')


def chosen_columns(metric: Metric) -> dict[str, list[str]]:
    """Returns settings of NNI's page under the names that it uses: columns of the list, and axes of the parallel coordinates.

    Args:
        metric: metric of the recipe.
    """
    measured = (f'test_{metric.name}', 'parameters')
    # Without number and duration, which come first and would push stage and strategy out of a window of 1280 pixels.
    columns = ['status', 'latestAccuracy']
    columns += [f'space/{name}' for name in _PARAMETERS] + [f'metric/{name}' for name in measured]
    return {'columns': columns, 'paraColumns': [*_PARAMETERS, 'default', *measured]}


def write_trials(folder: Path, metric: Metric, summary: str) -> None:
    """Writes the page.

    Args:
        folder: the folder that NNI serves under ``/logs/``; the page works only there.
        metric: metric of the recipe.
        summary: address of the summary.
    """
    write_text(folder / TRIALS, render('trials.html', {'chosen': chosen_columns(metric), 'summary': summary, 'over': True, 'source': ''}))
