"""Commands about NNI experiments (check, launch, stop, resume), and the command that NNI runs for each trial."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from nni_darts.activity import under_way
from nni_darts.cli.following import follow
from nni_darts.cli.group import main
from nni_darts.cli.options import identifier_argument, port_options
from nni_darts.cli.output import say, say_field
from nni_darts.cli.progress import Progress
from nni_darts.errors import InputError, sentence
from nni_darts.experiment.arguments import NOT_BY_HAND
from nni_darts.experiment.records import chosen
from nni_darts.files import write_text


@main.command(short_help='Find mistakes in data, a recipe or an experiment file.')
@click.argument('target', type=click.Path(path_type=Path))
@click.option('--set', 'overrides', multiple=True, metavar='KEY=VALUE', help='Change one setting of a recipe. Repeatable.')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def check(target: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Find mistakes before anything starts.

    TARGET can be a folder of images (or a .csv, .npz, .parquet): prints classes and counts, sizes, balance, duplicates, unreadable files,
    and a recipe to start from. It can be a recipe: prints the same for its data, and whether the recipe can be run. Or it can be the file
    of an NNI experiment.

    \b
    Examples:
      nni-darts check examples/own_images
      nni-darts check photos-small --set data.path=examples/own_images --set data.image_size=8
      nni-darts check examples/quickstart.yml
    """
    from nni_darts.cli.data import check_data, check_recipe, is_data, is_recipe

    if is_data(target) or is_recipe(target):
        with Progress():
            good = (check_data if is_data(target) else check_recipe)(target, overrides, as_json)
    elif overrides:
        raise InputError(f'--set changes a recipe, and {target} is not one; an experiment has its changes in tuner.classArgs.set.')
    elif as_json:
        from nni_darts.experiment.validate import check_experiment

        findings = check_experiment(target)
        click.echo(json.dumps({'facts': findings.facts, 'warnings': findings.warnings, 'errors': findings.errors}))
        good = not findings.errors
    else:
        good = _checked(target)
    if not good:
        sys.exit(2)
    if not as_json:
        click.echo('ok')


_ID_FILE_BYTES = 32
"""The largest size of a file that holds an id; a longer file is not overwritten."""


@main.command(short_help='Start an NNI experiment.')
@click.argument('experiment', type=click.Path(path_type=Path))
@port_options
@click.option('--id-file', type=click.Path(path_type=Path, dir_okay=False), help="Also write the experiment's id to this file.")
def launch(experiment: Path, port: int, wait: bool, id_file: Path | None) -> None:
    """Check the file EXPERIMENT, then start it as nnictl create does, but with NNI's manager on the loopback interface only.

    Prints the addresses of NNI's web page and of the summary, and returns while the experiment runs. nni-darts stop ends it.

    \b
    Example:
      nni-darts launch first/experiment.yml --wait
    """
    if id_file is not None and not id_file.absolute().parent.is_dir():
        raise InputError(f'--id-file {id_file}: there is no folder {id_file.parent}.')
    if id_file is not None and id_file.is_file() and id_file.stat().st_size > _ID_FILE_BYTES:
        raise InputError(f'--id-file {id_file} does not hold an id, and its content would be lost; name another file.')

    def started(identifier: str) -> None:
        if id_file is not None:
            write_text(id_file, identifier + '\n')

    launch_experiment(experiment, port, wait=wait, started=started)


def launch_experiment(experiment: Path, port: int, *, wait: bool, started: Callable[[str], object]) -> None:
    """Checks an experiment and starts it, or ends the program if it has mistakes.

    Args:
        experiment: path of the experiment's file.
        port: port of NNI's page.
        wait: whether to wait for the end of the experiment.
        started: called with the id as soon as it is known.
    """
    from nni_darts.experiment import nnictl

    nnictl.check_home()
    nnictl.check_port(port)
    if not _checked(experiment, closed=True):
        sys.exit(2)
    since = time.time()
    with Progress(), under_way("starting NNI's manager"):
        identifier = nnictl.create(experiment, port)
    started(identifier)
    _announce(port, identifier, since, wait)


@main.command(short_help='Stop an experiment.')
@identifier_argument
def stop(identifier: str | None) -> None:
    """Stop experiment ID, or the only one that is running. Its trials end; nni-darts resume continues them from their last checkpoints.

    \b
    Example:
      nni-darts stop
    """
    identifier = chosen(identifier, lambda record: record.port is not None, 'experiment that is running', alone=True).id
    from nni_darts.experiment import nnictl

    with Progress(), under_way('stopping the experiment'):
        stopped = nnictl.stop(identifier)
    click.echo(f'Experiment {identifier} {"is stopped" if stopped else "was not running"}; nni-darts resume {identifier} continues it.')


@main.command(short_help='Continue an experiment that was stopped or killed.')
@identifier_argument
@port_options
def resume(identifier: str | None, port: int, wait: bool) -> None:
    """Continue experiment ID, which was stopped or whose manager was killed. The manager listens on the loopback interface only.

    Without ID, the last unfinished experiment is continued. An experiment on remote machines needs a manager that they can reach, so
    continue it with nnictl resume.

    \b
    Example:
      nni-darts resume --port 8090 --wait
    """
    identifier = chosen(identifier, lambda record: record.resumable, 'experiment to continue').id
    from nni_darts.experiment import nnictl

    nnictl.check_home()
    since = time.time()
    with Progress(), under_way("starting NNI's manager"):
        nnictl.resume(identifier, port)
    _announce(port, identifier, since, wait)


@main.command(short_help='Run one trial; NNI starts it.')
def trial() -> None:
    """Run one trial of an experiment. NNI starts this command; do not run it by hand.

    \b
    Example, in the file of an experiment:
      trialCommand: nni-darts trial
    """
    if 'NNI_TRIAL_JOB_ID' not in os.environ:
        raise InputError(NOT_BY_HAND)
    from nni_darts.experiment.trial import run_trial

    run_trial()


def _checked(experiment: Path, closed: bool = False) -> bool:
    """Prints the findings of an experiment's check, and returns whether the experiment can start."""
    with Progress(), under_way('checking the experiment'):
        from nni_darts.experiment.validate import check_experiment

        findings = check_experiment(experiment, closed=closed)
    for fact in findings.facts:
        say(fact)
    for warning in findings.warnings:
        say(f'Warning: {sentence(warning)}', err=True)
    for error in findings.errors:
        say(f'Error: {sentence(error)}', err=True)
    return not findings.errors


def _announce(port: int, identifier: str, since: float, wait: bool) -> None:
    """Makes sure that a started experiment works, and prints its addresses."""
    from nni_darts.experiment.nnictl import has_tuner_at_last

    with Progress(), under_way('waiting for the tuner'):
        works = has_tuner_at_last(identifier, port, since)
    if not works:
        raise click.ClickException(f'The tuner of experiment {identifier} did not start within ten seconds: this machine is too busy.')
    click.echo(f'experiment {identifier} is running')
    say_field('NNI page', f'http://localhost:{port}/logs/trials.html')
    say_field('summary', f'http://localhost:{port}/logs/summary.html')
    say_field('files', str(Path.home() / 'nni-experiments' / identifier))
    say_field('stop', f'nni-darts stop {identifier}')
    if wait:
        follow(port, identifier)
