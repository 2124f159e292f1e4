"""Commands for the first steps: demo, new."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

import click

from nni_darts.cli.experiments import launch_experiment
from nni_darts.cli.group import main
from nni_darts.cli.options import NameFrom
from nni_darts.errors import InputError
from nni_darts.experiment.records import ExperimentRecord, experiments
from nni_darts.experiment.starters import STARTERS, example, write_starter
from nni_darts.files import cache_folder, write_text

_DEMO = 'demo.txt'
"""The file in the cache folder that holds the id of the last demo."""


@main.command(short_help='Run a demonstration: two strategies, four minutes.')
@click.option('--port', default=8080, show_default=True, type=click.IntRange(1024, 65535), help='Port of the web page.')
@click.option('--stop', 'end', is_flag=True, help='Stop the demo and its page.')
def demo(port: int, end: bool) -> None:
    """Run the quickstart: second-order DARTS against random search on digits, in about four minutes on two cores, without a download.

    The page stays up after the table is printed, until "nni-darts demo --stop". "nni-darts new quickstart DIR" writes the same experiment
    to a folder, ready to edit.

    \b
    Example:
      nni-darts demo --port 8090
    """
    running = _running_demo()
    if end:
        if running is None:
            click.echo('No demo is running.')
            return
        from nni_darts.experiment import nnictl

        nnictl.stop(running.id)
        click.echo(f'The demo, experiment {running.id}, is stopped.')
        return
    if running is not None:
        raise InputError(f'The demo is already up, as experiment {running.id} at {running.nni_address}; nni-darts demo --stop ends it.')
    kept = cache_folder() / _DEMO
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with resources.as_file(example(STARTERS['quickstart'].example)) as path:
        launch_experiment(path, port, wait=True, started=lambda identifier: write_text(kept, identifier + '\n'))
    click.echo('\nThe page stays up; "nni-darts demo --stop" ends it.')


def _running_demo() -> ExperimentRecord | None:
    """Returns the demo that was started last if its page is up; None otherwise."""
    try:
        identifier = (cache_folder() / _DEMO).read_text('utf-8').strip()
    except OSError:
        return None
    return next((record for record in experiments() if record.id == identifier and record.port is not None), None)


_KINDS = '\n'.join(f'{entry.name:<11} {entry.summary}' for entry in STARTERS.values())
_NEW = f"""Write a commented experiment.yml and its recipe to DIR, ready for nni-darts launch. Nothing is overwritten.

\b
{_KINDS}

\b
Examples:
  nni-darts new quickstart first
  nni-darts new images pets --data my_photos
  nni-darts new remote lab --machine me@192.0.2.10 --machine me@192.0.2.11
"""


@main.command(help=_NEW, short_help='Write an experiment to start from.')
@click.argument('name', metavar='|'.join(STARTERS), type=NameFrom(lambda: STARTERS))
@click.argument('folder', metavar='DIR', type=click.Path(path_type=Path))
@click.option('--data', type=click.Path(path_type=Path), help='images, text: the folder of your data.')
@click.option('--machine', 'machines', multiple=True, metavar='[USER@]HOST[:PORT]', help='remote: a machine for trials. Repeatable.')
def new(name: str, folder: Path, data: Path | None, machines: tuple[str, ...]) -> None:
    """Writes an experiment and prints the next commands."""
    written = write_starter(name, folder, data=data, machines=machines)
    experiment, recipe = written[:2]
    about = {experiment: 'strategies, seeds and changes to the recipe', recipe: 'data, space and all other settings'}
    for path in written:
        click.echo(f'wrote {path}: {about.get(path, "sample images, a folder for each class")}')
    click.echo('\nNext:')
    shown = shlex.quote(str(experiment))
    steps = [(f'nni-darts check {shown}', 'finds mistakes and counts its trials')]
    if STARTERS[name].machines:
        steps.append((f'nnictl create --config {shown}', 'behind a firewall: NNI then listens on all interfaces'))
    else:
        steps.append((f'nni-darts launch {shown} --wait', 'starts it, shows its progress and its table'))
    width = max(len(command) for command, _ in steps)
    for command, meaning in steps:
        click.echo(f'  {command:<{width}}  # {meaning}')
