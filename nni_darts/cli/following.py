"""Follows an experiment to its end: with a line for each running trial on a terminal, or a line of status once a minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nni_darts.cli.output import columns_of, print_warnings, say
from nni_darts.cli.progress import Screen, aligned
from nni_darts.recipes import Recipe
from nni_darts.report.lines import duration, measured, trial_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nni_darts.experiment.manager import Manager, TrialRecord
    from nni_darts.experiment.outlook import Outlook, RunningTrial

__all__ = ['follow']

POLL_SECONDS = 3
GRACE_SECONDS = 10
"""Seconds after a trial's end within which its result may still arrive."""
STATUS_SECONDS = 60
"""Seconds between two lines of status if the output is not a terminal."""
UNANSWERED = 20
"""Number of consecutive unanswered requests after which the manager counts as dead."""
WIDE = 60
"""Number of columns from which a terminal has room for words besides numbers."""
_SUMMARY_SECONDS = 30


def follow(port: int, identifier: str) -> None:
    """Shows the progress of a running experiment until it is over, then prints its table. It may be called at any time and repeatedly.

    On a terminal each running trial has a line with its epoch, its metric and the time left, below the results of finished trials.
    Elsewhere a line of status is printed to stderr each minute. Results and the table go to stdout. Ctrl-C leaves the experiment running.

    Args:
        port: port of the experiment's manager on this machine.
        identifier: id of the experiment, for messages.

    Raises:
        click.ClickException: if the experiment ends in error, or its manager no longer answers.
        SystemExit: with code 130 after Ctrl-C.
    """
    from nni_darts.experiment.manager import Manager
    from nni_darts.report.summary import footnotes, format_table

    manager, board = Manager(f'localhost:{port}'), _Board()
    try:
        with Screen(board.lines) as screen:
            _watch(manager, identifier, board, screen)
            summary = _last_summary(manager)
    except KeyboardInterrupt:
        again = f'nni-darts wait {identifier} follows it again, and nni-darts stop {identifier} ends it'
        say(f'Experiment {identifier} keeps running; {again}.', err=True)
        sys.exit(130)
    if summary is None:
        click.echo('The experiment ended before it had any results.')
        return
    click.echo('\n' + format_table(summary, columns_of(sys.stdout)))
    for line in footnotes(summary):
        click.echo()
        say(line)
    print_warnings(summary.get('cautions', []))


def _watch(manager: Manager, identifier: str, board: _Board, screen: Screen) -> None:
    """Keeps the board up to date until the experiment is over."""
    import requests

    from nni_darts.experiment.manager import ERROR
    from nni_darts.experiment.outlook import Observer

    observer, seen, unanswered = Observer(manager), set[str](), 0
    planned, said, said_at = '', '', time.monotonic()
    while True:
        try:
            status, outlook = manager.status(), observer.look()
            unanswered = 0
        except requests.RequestException:
            unanswered += 1
            if unanswered > UNANSWERED:
                raise click.ClickException(
                    f'The manager of experiment {identifier} is gone; continue with nni-darts resume {identifier}.'
                ) from None
            time.sleep(POLL_SECONDS)
            continue
        for record in outlook.finished:
            if record.id not in seen and not (status == 'RUNNING' and _may_still_report(record)):
                seen.add(record.id)
                screen.say(_ended(record), result=True)
        if outlook.plan != planned:
            planned = outlook.plan
            screen.say(planned)
        board.outlook = outlook
        if status == 'ERROR':
            raise click.ClickException(f'experiment {identifier} ended in error: {manager.log(ERROR) or " ".join(manager.errors())}')
        if status in ('DONE', 'STOPPED'):
            return
        if not screen.live and time.monotonic() >= said_at + STATUS_SECONDS:
            line = _status(outlook)
            if line != said:
                screen.say(line)
            said, said_at = line, time.monotonic()
        time.sleep(POLL_SECONDS)


def _ended(record: TrialRecord) -> str:
    """Returns the line of a trial that has ended."""
    recipe = Recipe.of_run(record.parameters['recipe'])
    held_out = getattr(getattr(recipe, record.parameters['stage']), 'validation_portion', 1.0)  # text always has validation data
    ranking = record.metric is not None and 'ranked' in record.metric
    return trial_line(record.key, recipe.metric, record.metric, validated=held_out > 0 and not ranking)


def _may_still_report(record: TrialRecord) -> bool:
    """Returns whether the result of a trial that has just ended may still arrive."""
    return record.metric is None and record.ended is not None and time.time() - record.ended < GRACE_SECONDS


def _status(outlook: Outlook) -> str:
    """Returns the state of an experiment in one line."""
    shown = [f'{trial.key}: ' + ', '.join(filter(None, (_epoch(trial), _value(trial)))) for trial in outlook.running]
    return '; '.join([', '.join(filter(None, (_done(outlook), _left(outlook.left, 0.0)))), *shown])


def _done(outlook: Outlook) -> str:
    lost = f' ({outlook.given_up} given up)' if outlook.given_up else ''
    if not outlook.expected:
        return f'{outlook.done} trials done'
    return f'{outlook.done} of {outlook.expected} trials done{lost}'


def _left(seconds: float | None, passed: float) -> str:
    return '' if seconds is None else f'about {duration(max(1.0, seconds - passed))} left'


def _epoch(trial: RunningTrial) -> str:
    return f'epoch {trial.epoch}/{trial.of}' if trial.of else trial.activity or f'starting, {duration(trial.elapsed)}'


def _value(trial: RunningTrial) -> str:
    if trial.value is None:
        return ''
    return f'{"valid" if trial.validated else "train"} {measured(trial.metric, trial.value)}'


class _Board:
    """The view of an experiment: a line for each running trial, and a line for the whole experiment."""

    def __init__(self) -> None:
        self.outlook: Outlook | None = None

    def lines(self, width: int, height: int) -> Iterator[RenderableType]:
        """Yields the lines that :class:`Screen` draws."""
        from rich.text import Text

        outlook = self.outlook
        if outlook is None:
            yield Text('asking for the state of the experiment')
            return
        passed = time.monotonic() - outlook.at
        rows = []
        for trial in outlook.running[: max(1, height - 3)]:
            epoch = f'{trial.epoch}/{trial.of}' if trial.of else 'starting'
            value = _value(trial) if width >= WIDE else _value(trial).partition(' ')[2]
            left = _left(trial.left, passed).removeprefix('about ') or duration(trial.elapsed + passed)
            rows.append((trial.key, trial.epoch / trial.of if trial.of else 0.0, (epoch, value, left)))
        if rows:
            yield aligned(width, rows, ('progress.download', '', 'progress.remaining'), longest=width // 2)
        for activity in dict.fromkeys(trial.activity for trial in outlook.running if trial.activity):
            yield Text(activity)
        hidden = len(outlook.running) - len(rows)
        if hidden:
            yield Text(f'… and {hidden} more')
        left = _left(outlook.left, passed)
        if not outlook.expected:
            yield Text(_done(outlook))
        elif width >= WIDE:
            part = (outlook.done + outlook.given_up) / outlook.expected
            yield aligned(width, [(_done(outlook), part, (left,))], ('progress.remaining',), longest=width // 2)
        else:
            yield Text(', '.join(filter(None, (_done(outlook).replace(' trials', ''), left.removeprefix('about ')))))


def _last_summary(manager: Manager) -> dict[str, Any] | None:
    """Returns the summary of an experiment that is over. Waits for it to be marked as final, up to a limit; None if there is none.

    If NNI ends an experiment because of a limit, the tuner learns of it a little later.
    """
    import requests

    from nni_darts.report.summary import DATA

    summary = None
    for _ in range(_SUMMARY_SECONDS):
        try:
            summary = manager.document(DATA) or None
        except requests.RequestException:
            break  # the manager was stopped in the meantime
        if summary and summary['over']:
            break
        time.sleep(1)
    return summary
