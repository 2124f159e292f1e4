"""The command line: every stage without NNI's manager, through the same functions as the trials."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nni_darts import __version__
from nni_darts.errors import InputError, RankLost
from nni_darts.genotypes import AnyGenotype, genotype_from_code, genotype_from_file, genotype_from_text
from nni_darts.metric import METRICS
from nni_darts.nasbench201 import NATS_DATASETS, NasBench201Genotype, Table, query_nats_bench
from nni_darts.notations import NASLIB_NUMBERING
from nni_darts.published import PUBLISHED
from nni_darts.recipe import Recipe, recipe_names
from nni_darts.strategies.presets import PRESETS, SELECTIONS, preset

if TYPE_CHECKING:
    from nni_darts.experiment.manager import Manager, TrialRecord

__all__ = ['main']

_ORDER = ('launch', 'stop', 'resume', 'check', 'search', 'retrain', 'draw', 'cost', 'export', 'query')
"""Of the commands in the help; others follow."""


_SUMMARY_SECONDS = 30
_DOWNLOADED = ('cifar10', 'cifar100', 'svhn', 'fashion-mnist')


class _Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt: Lightning would swallow that and exit by itself."""


class _Command(click.Command):
    """Refuses an option that is given twice where only one value counts."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(context).parse_args(args=list(args))
        for option in given:
            if isinstance(option, click.Option) and not option.multiple and given.count(option) > 1:
                raise InputError(f'{option.opts[0]} is given {given.count(option)} times; give it once')
        return super().parse_args(context, args)


class _Commands(click.Group):
    """Prints an InputError as one sentence with exit code 2; Ctrl-C with 130. Lists commands in the order in which one needs them."""

    command_class = _Command

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: (_ORDER + (name,)).index(name))

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            problem = click.ClickException(str(error))
            problem.exit_code = 2
            raise problem from None
        except (ArithmeticError, RankLost) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                full = 'the disk, or your share of it, is full: make room'
                raise click.ClickException(f'{full}; the same command with --resume continues an interrupted run') from None
            if error.filename is None or error.strerror is None:
                raise  # about no file: not the user's
            raise click.ClickException(f'{error.filename}: {error.strerror}') from None


@click.group(cls=_Commands, context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 110})
@click.version_option(__version__, prog_name='nni-darts')
def main() -> None:
    """Differentiable architecture search: find a cell, train its network, look at both.

    \b
    First steps, minutes on two cores with nothing to download:
      nni-darts launch examples/quickstart.yml --wait     two strategies as an NNI experiment
      nni-darts search --output out/search                one search by itself
      nni-darts draw out/search --output cell.svg         the cell that it found
      nni-darts retrain --genotype out/search --output out/retrain
    """


def _recipe_options(function: Callable[..., Any], of_folder: bool = False) -> Callable[..., Any]:
    function = click.option(
        '--set', 'overrides', multiple=True, metavar='KEY=VALUE', help='Change one setting, for example search.epochs=5. Repeatable.'
    )(function)
    shown = 'that of the folder of GENOTYPE, else digits' if of_folder else 'digits'
    help = 'Name ("nni-darts recipes") or path of a .yml file.'
    return click.option('--recipe', default=None if of_folder else 'digits', show_default=shown, help=help)(function)


def _own_recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    return _recipe_options(function, of_folder=True)


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option('--resume', is_flag=True, help='Go on where an interrupted run in the output folder stopped.')(function)
    function = click.option('--output', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for results.')(
        function
    )
    return click.option('--seed', default=1, show_default=True, type=click.IntRange(1, 2**31 - 1), help='Of everything random.')(function)


def _port_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option('--wait', is_flag=True, help='Wait for the end and print the table; the page stays up.')(function)
    return click.option('--port', default=8080, show_default=True, type=click.IntRange(1024, 65535), help='Of the web page.')(function)


def _recipe_for(source: str, recipe: str | None, overrides: tuple[str, ...]) -> Recipe:
    """The recipe that was named, or else that of the search or training which a genotype lies in, or else digits."""
    if recipe is None:
        folder = _folder_of(source)
        found = None if folder is None else Recipe.of_folder(folder, overrides)
        if found is not None:
            return found
    return Recipe.load(recipe or 'digits', overrides)


def _folder_of(source: str) -> Path | None:
    """The output folder that a genotype is read from; None for a name or a code."""
    if os.path.isdir(source):
        return Path(source)
    return Path(source).parent if os.path.isfile(source) else None


def _to_run(loaded: Recipe) -> Recipe:
    """Hides GPUs before torch is imported where the recipe stays on the CPU: torch would take memory there all the same.

    Raises:
        InputError: for a path of data where nothing is.
    """
    name, path = loaded.data.name, loaded.data.path
    if path and ':' not in name and not os.path.exists(path):  # a function of the user's may be given anything
        download = (
            f' {name} is read from a folder into which torchvision has downloaded it: download it once.' if name in _DOWNLOADED else ''
        )
        raise InputError(f'data.path: there is no file or folder {path}.{download}')
    if loaded.accelerator == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    return loaded


@main.command(short_help='Search a cell.')
@_recipe_options
@click.option('--strategy', default='darts-2nd', show_default=True, help='A name that "nni-darts strategies" lists.')
@_run_options
def search(recipe: str, overrides: tuple[str, ...], strategy: str, seed: int, output: Path, resume: bool) -> None:
    """Search a cell on the recipe's data.

    OUTPUT gets genotype.json, the cell; result.json with all settings; a checkpoint for --resume; and, of all strategies but random,
    search.html, the search to look at in a browser, written anew after each epoch, and metrics.jsonl, the same as data.

    \b
    Example:
      nni-darts search --recipe digits --strategy darts-pt --set search.epochs=5 --output out/search
    """
    try:
        preset(strategy)
    except ValueError as error:
        raise InputError(str(error)) from None
    loaded = _to_run(Recipe.load(recipe, overrides))
    from nni_darts import stages
    from nni_darts.report.searches import warnings_in

    calls = {'on_start': _print_start, 'on_epoch': _print_epoch, 'on_decision': _print_decision}
    with _interruptible(output):
        genotype, result = stages.search(loaded, strategy, seed, output, resume=resume, **calls)
    _print_warnings(warnings_in(output))
    click.echo(genotype.to_text())
    _print_result(result, output)


@main.command(short_help='Train the network of a cell from scratch.')
@_own_recipe_options
@click.option(
    '--genotype',
    'source',
    required=True,
    help='A published name, a file or folder with a genotype, FILE.py:NAME, - for a pipe, a pasted Genotype(…) or a code.',
)
@click.option(
    '--stage',
    default='retrain',
    show_default=True,
    type=click.Choice(['select', 'retrain']),
    help="Which of the recipe's trainings: select is the short one that cells are compared by, without a test.",
)
@_run_options
def retrain(recipe: str | None, overrides: tuple[str, ...], source: str, stage: str, seed: int, output: Path, resume: bool) -> None:
    """Train the network of a cell from scratch, and test it once at the end.

    Without --recipe the recipe and data are those of the search that found the cell, if GENOTYPE is its folder or in it.
    OUTPUT gets weights.pt, result.json with all settings, metrics.jsonl, and a checkpoint for --resume.

    \b
    Examples:
      nni-darts retrain --genotype out/search --output out/retrain
      nni-darts retrain --recipe cifar10 --set data.path=cifar --genotype DARTS_V2 --output out/cifar
    """
    loaded = _to_run(_recipe_for(source, recipe, overrides))
    genotype = read_genotype(source)
    from nni_darts import stages

    with _interruptible(output):
        calls = {'on_start': _print_start, 'on_epoch': _print_epoch}
        result = stages.train_cell(loaded, stage, genotype, seed, output, resume=resume, **calls)
    _print_result(result, output)


@main.command(short_help="Count a network's parameters and multiply-adds.")
@click.argument('source', metavar='GENOTYPE')
@_own_recipe_options
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def cost(source: str, recipe: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Parameters and multiply-adds of a cell's network at the recipe's retraining size.

    GENOTYPE is a published name, a file or output folder with a genotype in any form (of a log the last one counts), FILE.py:NAME, - for a
    pipe, a pasted Genotype(…), or the code from a result; without --recipe the recipe of that folder counts. The auxiliary head does not
    count; multiply-adds are those of convolutions and linear layers for one image, or of matrices for one word, half of what torch's
    FlopCounterMode counts.
    """
    loaded = _recipe_for(source, recipe, overrides)
    genotype = read_genotype(source)
    from nni_darts import stages
    from nni_darts.tasks import task_of

    task, folder = task_of(loaded), _folder_of(source)
    # The images of a run's own recipe may be gone: what they looked like is known.
    own = recipe is None and not any(text.startswith('data') for text in overrides) and folder is not None
    shape = (stages.kept_description(folder) if own and folder is not None else None) or task.shape(loaded)
    result = stages.cost_of(genotype, loaded, shape)
    click.echo(f'recipe {loaded.name}; data {loaded.data.name}: {task.describe_shape(shape)}', err=True)
    if as_json:
        click.echo(json.dumps(result))
    else:
        for name, value in result.items():
            click.echo(f'{name.replace("_", "-"):>13}  {value:,}')


@main.command(short_help='Draw a cell as SVG or PNG.')
@click.argument('source', metavar='GENOTYPE')
@click.option(
    '--output', 'outputs', required=True, multiple=True, type=click.Path(path_type=Path, dir_okay=False), help='A .svg or .png. Repeatable.'
)
def draw(source: str, outputs: tuple[Path, ...]) -> None:
    """Draw the cells of GENOTYPE as the papers do.

    GENOTYPE is a published name, a file with a genotype in any form (a log: the last one in it), FILE.py:NAME, - for a pipe, a pasted
    Genotype(…), the code from a result, or the output folder of a search: then each operation is drawn with the probability that α
    gives it.

    \b
    Example:
      nni-darts draw DARTS_V2 --output cell.svg --output cell.png
    """
    for path in outputs:
        if path.suffix not in ('.svg', '.png'):
            raise InputError(f'--output {path}: drawings are written as .svg or .png')
        if not path.absolute().parent.is_dir():
            raise InputError(f'--output {path}: there is no folder {path.parent}')
    genotype = read_genotype(source)
    from nni_darts.report.drawing import cell_svg
    from nni_darts.report.png import write_png
    from nni_darts.report.searches import strengths_in

    strengths = strengths_in(Path(source), genotype)
    for path in outputs:
        if path.suffix == '.svg':
            path.write_text(cell_svg(genotype, strengths), 'utf-8')
        else:
            write_png(path, genotype, strengths)
        click.echo(f'wrote {path}')


@main.command(short_help='Write a trained network as ONNX.')
@click.argument('checkpoint', type=click.Path(path_type=Path))
@click.option('--onnx', 'onnx_file', type=click.Path(path_type=Path, dir_okay=False), help='Write ONNX, checked against onnxruntime.')
@click.option('--pt2', 'pt2_file', type=click.Path(path_type=Path, dir_okay=False), help='Write a program for torch.export.load.')
def export(checkpoint: Path, onnx_file: Path | None, pt2_file: Path | None) -> None:
    """Write a trained image network for other programs.

    CHECKPOINT is the output folder of "nni-darts retrain", or the weights.pt in it. The file takes "images", a batch of any size with
    values from 0 to 1, and gives "logits"; it normalises as in training, and the images need not be there any more. ONNX needs
    pip install onnx onnxscript onnxruntime.
    """
    if onnx_file is None and pt2_file is None:
        raise InputError('say what to write: --onnx FILE, --pt2 FILE or both')
    for path in (onnx_file, pt2_file):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f'cannot write {path}: there is no folder {path.parent}')
    folder = checkpoint.parent if checkpoint.name == 'weights.pt' else checkpoint
    if not (folder / 'run.json').is_file():
        raise InputError(f'{folder} has no run.json: it is not the output folder of a finished nni-darts retrain')
    from nni_darts import stages
    from nni_darts.report.export import FromPixels, export_onnx, export_program, needs_onnx, save_program

    if onnx_file is not None:
        needs_onnx()
    network, genotype, recipe, data = stages.trained_image_network(folder)
    model, image = FromPixels(network, data.mean, data.std), (data.channels, *data.size)
    program = export_program(model, image)
    if onnx_file is not None:
        classes = json.dumps(list(data.classes), ensure_ascii=False)
        about = {'genotype': genotype.to_text(), 'data': recipe.data.name, 'classes': classes, 'nni-darts': __version__}
        difference = export_onnx(program, model, image, onnx_file, about)
        click.echo(f'wrote {onnx_file}: images (N, {", ".join(map(str, image))}) from 0 to 1 → logits; {difference:.1g} from torch at most')
    if pt2_file is not None:
        save_program(program, pt2_file)
        click.echo(f'wrote {pt2_file}')


@main.command(short_help='Look a cell of NAS-Bench-201 up.')
@click.argument('source', metavar='ARCH')
@click.option('--table', type=click.Path(path_type=Path, dir_okay=False), help='The benchmark as a .csv or .csv.gz with a column arch_str.')
@click.option('--nats-bench', type=click.Path(path_type=Path, file_okay=False), help='Or a folder of NATS-Bench (pip install nats_bench).')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
def query(source: str, table: Path | None, nats_bench: Path | None, as_json: bool) -> None:
    """What the authors of NAS-Bench-201 measured of a cell: accuracies in per cent.

    ARCH is the benchmark's text ('|nor_conv_3x3~0|+|…|'), a file with a genotype, a sample of NNI's NasBench201, six numbers of NASLib
    ('(4, 0, 3, 1, 4, 3)'), or the code from a result.
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
        shown = [f'{name} ({data})' for name, data in NATS_DATASETS.items() if name in values]
        if shown:
            click.echo(f'Papers report {", ".join(shown)}: test accuracy after 200 epochs, mean of the seeds.')


@main.command()
def strategies() -> None:
    """List the strategies, for --strategy and for experiments."""
    width = max(map(len, PRESETS))
    for entry in PRESETS.values():
        click.echo(f'{entry.name:<{width}}  {entry.summary} ({entry.paper})')
    others = ', '.join(entry.name for entry in PRESETS.values() if not entry.relaxed)
    click.echo(f'\nAll but {others} also with another selection behind the name, for example darts-2nd+pt (darts-pt is darts-1st+pt):')
    for suffix, (_, summary, paper, _) in SELECTIONS.items():
        click.echo(f'{"+" + suffix:<{width}}  {summary} ({paper})')


@main.command()
def recipes() -> None:
    """List the recipes: data and settings by name."""
    width = max(map(len, recipe_names()))
    for name in recipe_names():
        first = resources.files('nni_darts').joinpath('recipes', f'{name}.yml').read_text('utf-8').splitlines()[0]
        click.echo(f'{name:<{width}}  {first.lstrip("# ")}')


@main.command(short_help='Find what is wrong with an experiment file.')
@click.argument('experiment', type=click.Path(path_type=Path))
def check(experiment: Path) -> None:
    """Find what would go wrong with EXPERIMENT.yml before NNI starts."""
    if not _checked(experiment):
        sys.exit(2)
    click.echo('ok')


@main.command(short_help='Start an NNI experiment.')
@click.argument('experiment', type=click.Path(path_type=Path))
@_port_options
@click.option('--id-file', type=click.Path(path_type=Path, dir_okay=False), help="Also write the experiment's id into this file.")
def launch(experiment: Path, port: int, wait: bool, id_file: Path | None) -> None:
    """Check EXPERIMENT.yml, then start it: nnictl create, with NNI's manager bound to this machine.

    Prints the addresses of NNI's web page and of the summary, and returns while the experiment runs; nni-darts stop ends it.
    """
    if not _checked(experiment, closed=True):
        sys.exit(2)
    if _in_use(port):
        raise InputError(f'port {port} is in use; choose another one with --port')
    from nni_darts.experiment import nnictl

    since = time.time()
    identifier = nnictl.create(experiment, port)
    if id_file:
        id_file.write_text(identifier + '\n', 'utf-8')
    _follow(port, identifier, since, wait)


@main.command(short_help='Stop an experiment.')
@click.argument('identifier', metavar='ID')
def stop(identifier: str) -> None:
    """Stop experiment ID. Its trials end; nni-darts resume continues them from their last checkpoints."""
    from nni_darts.experiment import nnictl

    stopped = nnictl.stop(identifier)
    click.echo(f'experiment {identifier} {"is stopped" if stopped else "was not running"}; nni-darts resume {identifier} goes on with it')


@main.command(short_help='Go on with an experiment that was stopped or killed.')
@click.argument('identifier', metavar='ID')
@_port_options
def resume(identifier: str, port: int, wait: bool) -> None:
    """Go on with experiment ID that was stopped, or whose manager was killed; the manager is bound to this machine.

    An experiment on remote machines needs a manager that they can reach: nnictl resume.
    """
    if _in_use(port):
        raise InputError(f'port {port} is in use; choose another one with --port')
    from nni_darts.experiment import nnictl

    since = time.time()
    nnictl.resume(identifier, port)
    _follow(port, identifier, since, wait)


@main.command(short_help='What NNI runs for each trial.')
def trial() -> None:
    """What NNI runs for each trial; not for use by hand."""
    from nni_darts.experiment.trial import run_trial

    run_trial()


def read_genotype(source: str) -> AnyGenotype:
    """A genotype from a published name, a file in any form that is known, ``FILE.py:NAME``, ``-`` for standard input, its text or a code.

    Raises:
        InputError: if it is none of them, or the content is no genotype.
    """
    if source in PUBLISHED:
        return PUBLISHED[source]
    if source == '-':
        return _read_as('standard input', lambda: genotype_from_text(sys.stdin.read()))
    # os.path, not pathlib: a text that is too long for a path is simply none.
    path = os.path.join(source, 'genotype.json')
    path = path if os.path.isfile(path) else source
    if os.path.isfile(path):
        read = genotype_from_file if path.endswith('.py') else genotype_from_text
        return _read_as(path, lambda: read(Path(path).read_text('utf-8')))
    file, _, name = source.rpartition(':')
    if os.path.isfile(file):
        return _read_as(file, lambda: genotype_from_file(Path(file).read_text('utf-8'), name))
    if source.lstrip().startswith(('|', '{', '(', '[')) or 'Genotype' in source:
        genotype = _read_as(f'{source[:60]!r}', lambda: genotype_from_text(source))
        if source.lstrip().startswith(('(', '[')):
            click.echo(f'{NASLIB_NUMBERING}: {genotype.to_text()}', err=True)
        return genotype
    try:
        return genotype_from_code(source)
    except ValueError:
        raise InputError(
            f'no genotype {source[:100]!r}: give a file, FILE.py:NAME, - for standard input, a pasted Genotype(…), a code from a result, '
            f'or one of {", ".join(PUBLISHED)}'
        ) from None


def _read_as(where: str, read: Callable[[], AnyGenotype]) -> AnyGenotype:
    try:
        return read()
    except (ValueError, OSError) as error:
        raise InputError(f'{where}: no genotype: {error}') from None


def _checked(experiment: Path, closed: bool = False) -> bool:
    """Prints what the check of an experiment found; whether it can start."""
    from nni_darts.experiment.validate import check_experiment

    findings = check_experiment(experiment, closed=closed)
    for fact in findings.facts:
        click.echo(fact)
    for warning in findings.warnings:
        click.echo(f'Warning: {warning}', err=True)
    for error in findings.errors:
        click.echo(f'Error: {error}', err=True)
    return not findings.errors


def _follow(port: int, identifier: str, since: float, wait: bool) -> None:
    """Makes sure that an experiment that was started works, and says where it is."""
    from nni_darts.experiment.nnictl import has_tuner_at_last

    if not has_tuner_at_last(identifier, port, since):
        raise click.ClickException(f'the tuner of experiment {identifier} did not start within ten seconds: this machine is too busy')
    click.echo(f'experiment {identifier} is running')
    click.echo(f'  NNI page      http://localhost:{port}')
    click.echo(f'  summary       http://localhost:{port}/logs/summary.html')
    click.echo(f'  files         {Path.home() / "nni-experiments" / identifier}')
    click.echo(f'  stop          nni-darts stop {identifier}')
    if wait:
        _wait(port, identifier)


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def _wait(port: int, identifier: str) -> None:
    """Shows progress until the experiment is over, then its table."""
    import requests

    from nni_darts.experiment.manager import ERROR, FINISHED, Manager
    from nni_darts.report.summary import format_limit, format_table

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
                raise click.ClickException(
                    f'the manager of experiment {identifier} is gone; nni-darts resume {identifier} goes on'
                ) from None
            continue
        for record in records:
            if record.status in FINISHED and record.id not in seen:
                seen.add(record.id)
                click.echo(f'  {record.key}: {_shown(record)}')
        if status == 'ERROR':
            raise click.ClickException(f'experiment {identifier} ended in error: {manager.log(ERROR) or " ".join(manager.errors())}')
        if status in ('DONE', 'STOPPED'):
            break
    summary = _last_summary(manager)
    if summary is None:
        click.echo('it ended before there was anything to show')
        return
    click.echo('\n' + format_table(summary))
    limit = format_limit(summary)
    if limit:
        click.echo('\n' + limit)


def _last_summary(manager: Manager) -> dict[str, Any] | None:
    """The summary of an experiment that is over, once it says so itself, or what there is after a time; None if there is none.

    Where a limit of NNI's ends an experiment, the tuner hears of it a little later.
    """
    import requests

    from nni_darts.report.summary import DATA

    summary = None
    for _ in range(_SUMMARY_SECONDS):
        try:
            text = manager.log(DATA)
        except requests.RequestException:
            break  # the manager was stopped meanwhile
        summary = json.loads(text) if text else None
        if summary and summary['over']:
            break
        time.sleep(1)
    return summary


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


def _print_start(headline: str, warnings: list[str]) -> None:
    """Recipe, data, classes and sizes before anything else, then what to be warned of."""
    click.echo(headline, err=True)
    _print_warnings(warnings)


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f'Warning: {warning}.', err=True)


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
    what = {'operation': 'keeps', 'topology': 'drops input', 'edge': 'is decided:', 'ranking': 'is'}[record['stage']]
    margin = '' if record['margin'] is None else f'  margin {record["margin"]:.4f}'
    click.echo(f'  {record["label"]} {what} {record["choice"]}{margin}', err=True)


def _print_result(result: dict[str, Any], output: Path) -> None:
    for name, value in result.items():
        metric = METRICS.get(name.rpartition('_')[2])
        metric = METRICS['accuracy'] if name == 'largest_class' else metric
        shown = f'{value:,}' if metric is None else f'{metric.shown(value)}{" %" if metric.percent else ""}'
        click.echo(f'{name.replace("_", " "):>16}  {shown}')
    click.echo(f'{"files":>16}  {output}')


if __name__ == '__main__':
    main(prog_name='nni-darts')
