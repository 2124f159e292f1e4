"""The command line: every stage without NNI's manager, through the same functions as the trials."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nni_darts import __version__
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype, genotype_from_code, genotype_from_text
from nni_darts.metric import METRICS
from nni_darts.nasbench201 import NasBench201Genotype, Table, query_nats_bench
from nni_darts.published import PUBLISHED
from nni_darts.recipe import Recipe, recipe_names
from nni_darts.strategies.presets import PRESETS, SELECTIONS

if TYPE_CHECKING:
    from nni_darts.experiment.manager import TrialRecord

__all__ = ['main']


class _Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt: Lightning would swallow that and exit by itself."""


class _Commands(click.Group):
    """Prints an InputError as one sentence with exit code 2; Ctrl-C with 130."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            problem = click.ClickException(str(error))
            problem.exit_code = 2
            raise problem from None
        except ArithmeticError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands, context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 110})
@click.version_option(__version__, prog_name='nni-darts')
def main() -> None:
    """Differentiable architecture search. Every command is also what an NNI trial does."""


def _recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        '--set', 'overrides', multiple=True, metavar='KEY=VALUE', help='Change one setting, for example search.epochs=5. Repeatable.'
    )(function)
    return click.option('--recipe', default='digits', show_default=True, help='Name ("nni-darts recipes") or path of a .yml file.')(
        function
    )


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option('--resume', is_flag=True, help='Go on where an interrupted run in the output folder stopped.')(function)
    function = click.option('--output', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for results.')(
        function
    )
    return click.option('--seed', default=1, show_default=True, type=click.IntRange(1, 2**31 - 1), help='Of everything random.')(function)


@main.command()
@_recipe_options
@click.option('--strategy', default='darts-2nd', show_default=True, help='A name that "nni-darts strategies" lists.')
@_run_options
def search(recipe: str, overrides: tuple[str, ...], strategy: str, seed: int, output: Path, resume: bool) -> None:
    """Search a cell; writes OUTPUT/genotype.json."""
    loaded = Recipe.load(recipe, overrides)
    from nni_darts import stages

    with _interruptible(output):
        genotype, result = stages.search(loaded, strategy, seed, output, resume=resume, on_epoch=_print_epoch, on_decision=_print_decision)
    click.echo(genotype.to_text())
    _print_result(result, output)


@main.command()
@_recipe_options
@click.option('--genotype', 'source', required=True, help='A genotype.json, a published name, or the code from a result.')
@_run_options
def retrain(recipe: str, overrides: tuple[str, ...], source: str, seed: int, output: Path, resume: bool) -> None:
    """Train the network of a cell from scratch; writes OUTPUT/weights.pt."""
    loaded = Recipe.load(recipe, overrides)
    genotype = read_genotype(source)
    from nni_darts import stages

    with _interruptible(output):
        result = stages.train_cell(loaded, 'retrain', genotype, seed, output, resume=resume, on_epoch=_print_epoch)
    _print_result(result, output)


@main.command()
@click.argument('source', metavar='GENOTYPE')
@_recipe_options
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def cost(source: str, recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Parameters and multiply-adds of a cell's network at the recipe's retraining size.

    GENOTYPE is a genotype.json, a published name, or the code from a result. The auxiliary head does not count; multiply-adds are
    those of convolutions and linear layers for one image, or of matrices for one word.
    """
    loaded = Recipe.load(recipe, overrides)
    genotype = read_genotype(source)
    from nni_darts import stages
    from nni_darts.tasks import task_of

    result = stages.cost_of(genotype, loaded, task_of(loaded).shape(loaded))
    if as_json:
        click.echo(json.dumps(result))
    else:
        for name, value in result.items():
            click.echo(f'{name.replace("_", "-"):>13}  {value:,}')


@main.command()
@click.argument('source', metavar='ARCH')
@click.option('--table', type=click.Path(path_type=Path, dir_okay=False), help='The benchmark as a .csv or .csv.gz with a column arch_str.')
@click.option('--nats-bench', type=click.Path(path_type=Path, file_okay=False), help='Or a folder of NATS-Bench (pip install nats_bench).')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def query(source: str, table: Path | None, nats_bench: Path | None, as_json: bool) -> None:
    """What the authors of NAS-Bench-201 measured of a cell: accuracies in per cent.

    ARCH is the benchmark's text ('|nor_conv_3x3~0|+|…|'), a genotype.json or the code from a result.
    """
    genotype = read_genotype(source)
    if not isinstance(genotype, NasBench201Genotype):
        raise InputError(f'{source} is no cell of the space nasbench201, the only ones that the benchmark knows')
    if (table is None) == (nats_bench is None):
        raise InputError('give either --table or --nats-bench: where the measurements are')
    values = Table.read(table).query(genotype) if table else query_nats_bench(nats_bench, genotype)
    if as_json:
        click.echo(json.dumps({'arch': genotype.to_text(), **values}))
    else:
        click.echo(genotype.to_text())
        for name, value in values.items():
            click.echo(f'{name:>16}  {value:.2f}')


@main.command()
def strategies() -> None:
    """List the strategies and where they come from."""
    width = max(map(len, PRESETS))
    for entry in PRESETS.values():
        click.echo(f'{entry.name:<{width}}  {entry.summary} ({entry.paper})')
    others = ', '.join(entry.name for entry in PRESETS.values() if not entry.relaxed)
    click.echo(f'\nAll but {others} also with another selection behind the name, for example darts-2nd+pt (darts-pt is darts-1st+pt):')
    for suffix, (_, summary, paper, _) in SELECTIONS.items():
        click.echo(f'{"+" + suffix:<{width}}  {summary} ({paper})')


@main.command()
def recipes() -> None:
    """List the recipes and what their first line says."""
    width = max(map(len, recipe_names()))
    for name in recipe_names():
        first = resources.files('nni_darts').joinpath('recipes', f'{name}.yml').read_text('utf-8').splitlines()[0]
        click.echo(f'{name:<{width}}  {first.lstrip("# ")}')


@main.command()
@click.argument('experiment', type=click.Path(path_type=Path))
def check(experiment: Path) -> None:
    """Find what would go wrong with EXPERIMENT.yml before NNI starts."""
    if not _checked(experiment):
        sys.exit(2)
    click.echo('ok')


@main.command()
@click.argument('experiment', type=click.Path(path_type=Path))
@click.option('--port', default=8080, show_default=True, type=click.IntRange(1024, 65535), help='Of the web page.')
@click.option('--wait', is_flag=True, help='Wait for the end and print the table; the page stays up.')
@click.option('--id-file', type=click.Path(path_type=Path, dir_okay=False), help="Also write the experiment's id into this file.")
def launch(experiment: Path, port: int, wait: bool, id_file: Path | None) -> None:
    """Check EXPERIMENT.yml, then run nnictl create with the manager bound to this machine."""
    if not _checked(experiment, closed=True):
        sys.exit(2)
    if _in_use(port):
        raise InputError(f'port {port} is in use; choose another one with --port')
    script = resources.files('nni_darts.experiment').joinpath('loopback.cjs')
    options = f'{os.environ.get("NODE_OPTIONS", "")} --require "{script}"'.strip()
    started = subprocess.run(
        ['nnictl', 'create', '--config', str(experiment), '--port', str(port)],
        env={**os.environ, 'NODE_OPTIONS': options, 'PYTHONWARNINGS': 'ignore'},
        capture_output=True,
        text=True,
    )
    identifier = _experiment_id(started.stdout + started.stderr)
    if started.returncode or not identifier:
        raise InputError(f'nnictl create failed: {_complaint(started.stdout + started.stderr)}')
    if id_file:
        id_file.write_text(identifier + '\n', 'utf-8')
    click.echo(f'experiment {identifier} is running')
    click.echo(f'  NNI page      http://localhost:{port}')
    click.echo(f'  summary       http://localhost:{port}/logs/summary.html')
    click.echo(f'  files         {Path.home() / "nni-experiments" / identifier}')
    click.echo(f'  stop          nnictl stop {identifier}')
    if wait:
        _wait(port, identifier)


@main.command()
def trial() -> None:
    """What NNI runs for each trial; not for use by hand."""
    from nni_darts.experiment.trial import run_trial

    run_trial()


def read_genotype(source: str) -> AnyGenotype:
    """A genotype from a published name, a file (JSON or the literature's text) or a code.

    Raises:
        InputError: if it is none of them, or the file's content is no genotype.
    """
    if source in PUBLISHED:
        return PUBLISHED[source]
    path = Path(source)
    if (path / 'genotype.json').is_file():
        path = path / 'genotype.json'
    if path.is_file():
        try:
            return genotype_from_text(path.read_text('utf-8'))
        except (ValueError, OSError) as error:
            raise InputError(f'{path}: {error}') from None
    try:
        return genotype_from_text(source) if source.startswith('|') else genotype_from_code(source)
    except ValueError:
        raise InputError(f'no genotype {source!r}: give a file, a code from a result, or one of {", ".join(PUBLISHED)}') from None


def _checked(experiment: Path, closed: bool = False) -> bool:
    """Prints what the check of an experiment found; whether it can start."""
    from nni_darts.experiment.validate import check_experiment

    findings = check_experiment(experiment)
    for fact in findings.facts:
        click.echo(fact)
    for warning in findings.warnings:
        if not (closed and warning.startswith('nnictl create')):
            click.echo(f'Warning: {warning}', err=True)
    for error in findings.errors:
        click.echo(f'Error: {error}', err=True)
    return not findings.errors


def _experiment_id(output: str) -> str:
    found = re.search(r'Experiment ID: (?:\x1b\[\d*m)?(\w+)', output)
    return found.group(1) if found else ''


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def _complaint(text: str) -> str:
    """The line of nnictl's output that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if 'error' in line.lower()), lines[-1] if lines else 'it printed nothing')


def _wait(port: int, identifier: str) -> None:
    """Shows progress until the experiment is over, then its table."""
    import requests

    from nni_darts.experiment.manager import FINISHED, Manager
    from nni_darts.report.summary import DATA, format_table

    manager = Manager(f'localhost:{port}')
    seen: set[str] = set()
    unanswered = 0
    while True:
        time.sleep(3)
        try:
            status, records = manager.status(), manager.trials()
            unanswered = 0
        except requests.RequestException:
            unanswered += 1
            if unanswered > 20:
                raise click.ClickException(f'the manager of experiment {identifier} is gone; nnictl resume {identifier} goes on') from None
            continue
        for record in records:
            if record.status in FINISHED and record.id not in seen:
                seen.add(record.id)
                click.echo(f'  {record.key}: {_shown(record)}')
        if status == 'ERROR':
            raise click.ClickException(f'experiment {identifier} ended in error: {" ".join(manager.errors())}')
        if status in ('DONE', 'STOPPED'):
            break
    summary = requests.get(f'http://localhost:{port}/logs/{DATA}', timeout=20).json()
    click.echo('\n' + format_table(summary))


def _shown(record: TrialRecord) -> str:
    """The result of a trial in a few words."""
    if record.metric is None:
        return 'no result'
    metric = Recipe.from_dict(record.parameters['recipe']).metric
    return f'validation {metric.shown(record.metric["default"])} {metric.unit}'


class _interruptible:
    """Ctrl-C ends the block with one sentence: what is kept and how to go on."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def __enter__(self) -> None:
        def interrupt(*_: Any) -> NoReturn:
            raise _Interrupted

        self.before = signal.signal(signal.SIGINT, interrupt)

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        signal.signal(signal.SIGINT, self.before)
        if kind is _Interrupted:
            click.echo(f'\ninterrupted; what was done lies in {self.output}, the same command with --resume goes on', err=True)
            sys.exit(130)


def _print_epoch(record: dict[str, float]) -> None:
    """A line for each epoch."""
    parts = [f'epoch {record["epoch"]}/{record["of"]}']
    for name in ('train_loss', 'train_accuracy', 'valid_accuracy', 'train_perplexity', 'valid_perplexity'):
        if name in record:
            parts.append(f'{name.replace("_", " ")} {record[name]:.4f}')
    if 'of_decisions' in record:
        parts.append(f'decisions {record["decisions"]}/{record["of_decisions"]}')
    click.echo('  '.join([*parts, f'{record["seconds"]:.1f} s']), err=True)


def _print_decision(record: dict[str, Any]) -> None:
    """A line for each decision of a selection."""
    what = {'operation': 'keeps', 'topology': 'drops input', 'edge': 'is decided:'}[record['stage']]
    margin = '' if record['margin'] is None else f'  margin {record["margin"]:.4f}'
    click.echo(f'  {record["label"]} {what} {record["choice"]}{margin}', err=True)


def _print_result(result: dict[str, Any], output: Path) -> None:
    for name, value in result.items():
        metric = METRICS.get(name.rpartition('_')[2])
        shown = f'{value:,}' if metric is None else f'{metric.shown(value)}{" %" if metric.percent else ""}'
        click.echo(f'{name.replace("_", " "):>16}  {shown}')
    click.echo(f'{"files":>16}  {output}')
