"""Commands that show experiments: list, status, wait, open."""

from __future__ import annotations

import json
import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

import click

from nni_darts.cli.following import follow
from nni_darts.cli.group import main
from nni_darts.cli.options import identifier_argument
from nni_darts.cli.output import columns_of, print_warnings, say, say_field
from nni_darts.errors import InputError
from nni_darts.experiment.records import ExperimentRecord, chosen, experiments
from nni_darts.recipes.metric import METRICS
from nni_darts.report.summary import footnotes, format_table
from nni_darts.report.table_formats import columns

_NOTHING = '–'


@main.command('list', short_help='List your experiments.')
@click.option('--json', 'as_json', is_flag=True, help='Print a JSON list.')
def list_experiments(as_json: bool) -> None:
    """List the experiments that were started on this machine, the most recent one last.

    "trials" is the number of finished trials and of all trials known so far; "best" is the strategy with the best validation metric, by
    which strategies are compared.

    \b
    Example:
      nni-darts list
    """
    found = [(record, record.summary()) for record in experiments()]
    if as_json:
        click.echo(json.dumps([_as_data(record, summary) for record, summary in found], indent=1))
        return
    if not found:
        click.echo('There are no experiments yet; nni-darts demo starts one.')
        return
    header = ('id', 'name', 'state', 'port', 'started', 'trials', 'best')
    rows = [
        (
            record.id,
            record.name or _NOTHING,
            record.state,
            _NOTHING if record.port is None else str(record.port),
            f'{record.started:%Y-%m-%d %H:%M}' if record.started else _NOTHING,
            _trials(summary),
            _best(summary),
        )
        for record, summary in found
    ]
    click.echo(columns(header, rows, left=(0, 1, 2, 4, 6)))
    for record, _ in found:
        if record.state == 'died':
            click.echo(f'\n{record.id} died: its manager ended without being stopped. Continue with nni-darts resume {record.id}.')


@main.command(short_help='Show the state of an experiment.')
@identifier_argument
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object: the data of the summary page and of "list".')
def status(identifier: str | None, as_json: bool) -> None:
    """Show the state of experiment ID: addresses, trials, failures, the table so far.

    Without ID, the last running experiment is shown, or the last one if none is running.

    \b
    Example:
      nni-darts status
    """
    record = _current(identifier)
    summary = record.summary()
    if as_json:
        click.echo(json.dumps({**_as_data(record, summary), 'summary': summary}, indent=1))
        return
    title = f' ({record.name})' if record.name else ''
    click.echo(f'experiment {record.id}{title}: {_STATES[record.state].format(id=record.id)}')
    lines = [('started', f'{record.started:%Y-%m-%d %H:%M}' if record.started else ''), ('NNI page', record.nni_address or '')]
    lines += [('summary', record.summary_address if record.page.exists() else ''), ('files', str(record.folder))]
    lines.append(('reason', record.reason()))
    if summary is not None:
        running = [job['key'] for job in summary['jobs'] if job['state'] == 'running'] if record.state == 'running' else []
        lines += [('trials', f'{_trials(summary)} known so far are done'), ('running', ', '.join(running))]
        lines += [('given up', ', '.join(summary['failed']))]
    for name, text in lines:
        if text:
            say_field(name, text)
    if summary is not None:
        click.echo('\n' + format_table(summary, columns_of(sys.stdout)))
        for line in footnotes(summary):
            click.echo()
            say(line)
        print_warnings(summary.get('cautions', []))


@main.command(short_help='Follow a running experiment to its end.')
@identifier_argument
def wait(identifier: str | None) -> None:
    """Follow experiment ID, or the last running one, until it is over; then print its table. Ctrl-C leaves the experiment running.

    \b
    Example:
      nni-darts wait
    """
    record = chosen(identifier, lambda record: record.port is not None, 'experiment that is running')
    if record.port is None:
        raise InputError(f'Experiment {record.id} is not running: {_STATES[record.state].format(id=record.id)}.')
    follow(record.port, record.id)


@main.command('open', short_help="Open an experiment's page in the browser.")
@identifier_argument
@click.option('--nni', is_flag=True, help="Open NNI's own page instead, which is up while the experiment's manager runs.")
@click.option('--print', 'only_print', is_flag=True, help='Only print the address.')
def open_page(identifier: str | None, nni: bool, only_print: bool) -> None:
    """Open the summary page of experiment ID in the browser, and print its address. A stopped experiment's page opens from its files.

    Without ID, the last running experiment is opened, or the last one if none is running.

    \b
    Example:
      nni-darts open --print
    """
    record = _current(identifier)
    address = record.nni_address if nni else record.summary_address
    if address is None:
        raise InputError(f"Experiment {record.id} is not running, so NNI's page is not up; nni-darts open {record.id} shows its summary.")
    if record.port is None and not record.page.is_file():
        raise InputError(f'Experiment {record.id} has no summary page: there is no file {record.page}.')
    click.echo(address)
    if not only_print and not webbrowser.open(address):
        click.echo('No browser could be started; open this address by hand.', err=True)


_STATES = {
    'running': 'running',
    'finished': 'finished',
    'error': 'ended in error; once the cause is fixed, try again with nni-darts resume {id}',
    'stopped': 'stopped; continue with nni-darts resume {id}',
    'died': 'died: its manager has ended; continue with nni-darts resume {id}',
}


def _current(identifier: str | None) -> ExperimentRecord:
    """Returns the experiment with an id, else the last running one, else the last one."""
    if identifier is None:
        running = [record for record in experiments() if record.state == 'running']
        if running:
            return running[-1]
    return chosen(identifier)


def _as_data(record: ExperimentRecord, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        'id': record.id,
        'name': record.name,
        'state': record.state,
        'port': record.port,
        'started': record.started.isoformat() if record.started else None,
        'folder': str(record.folder),
        'done': sum(job['state'] == 'done' for job in summary['jobs']) if summary else None,
        'known': len(summary['jobs']) if summary else None,
    }


def _trials(summary: Mapping[str, Any] | None) -> str:
    return f'{sum(job["state"] == "done" for job in summary["jobs"])}/{len(summary["jobs"])}' if summary else _NOTHING


def _best(summary: Mapping[str, Any] | None) -> str:
    """Returns the strategy with the best validation metric. Test results must not be used to choose one."""
    if summary is None:
        return _NOTHING
    metric = METRICS[summary['metric']]
    row = metric.best([row for row in summary['strategies'] if row['select']], lambda row: row['select']['mean'])
    return _NOTHING if row is None else f'{row["strategy"]} {metric.shown(row["select"]["mean"])} {metric.unit} valid'
