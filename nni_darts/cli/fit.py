"""The command ``fit``, which does everything from a folder of images to a trained network."""

from __future__ import annotations

import json
import os
import sys
import time
import webbrowser
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nni_darts.activity import loading_torch, under_way
from nni_darts.cli.data import data_kind, is_data
from nni_darts.cli.group import main
from nni_darts.cli.output import interruptible
from nni_darts.cli.progress import Progress
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.networks import KNOWN
from nni_darts.report.lines import duration, warning_line
from nni_darts.runs.checks import check_strategy
from nni_darts.runs.durations import parse_duration

if TYPE_CHECKING:
    from nni_darts.runs.fit import Order, Plan

__all__ = ['parse_count']

_COUNTS = {'k': 1e3, 'm': 1e6, 'g': 1e9}
_LEAST_PARAMETERS = 1000


def parse_count(text: str) -> int:
    """Returns the number that a text such as ``1M``, ``250k`` or ``40000`` stands for.

    Raises:
        InputError: if the text is no such number, or the number is below a thousand.
    """
    unit = text[-1:].lower()
    try:
        count = float(text[:-1]) * _COUNTS[unit] if unit in _COUNTS else float(text)
        if _LEAST_PARAMETERS <= count < float('inf'):
            return int(count)
    except ValueError:
        pass
    raise InputError(
        f'--max-parameters {text!r} is not a number of parameters: write for example 250k or 1M, at least {_LEAST_PARAMETERS}.'
    )


@main.command(short_help='Turn a folder of images into a trained network.')
@click.argument('folder', type=click.Path(path_type=Path))
@click.option('--output', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for the results.')
@click.option('--time', 'time_text', default='1h', show_default=True, metavar='DURATION', help='Total time, such as 20m, 2h or 1h30m.')
@click.option('--max-parameters', 'most', metavar='COUNT', help='Largest size of the final network, such as 250k or 1M.')
@click.option('--strategy', default='darts-1st', show_default=True, help='A name that "nni-darts strategies" lists.')
@click.option(
    '--baseline',
    default='mobilenet_v3_small',
    show_default=True,
    type=click.Choice([*KNOWN, 'none']),
    help='A torchvision network that is trained with the same recipe for comparison.',
)
@click.option('--seed', default=1, show_default=True, type=click.IntRange(1, 2**31 - 1), help='Seed of all random numbers.')
@click.option('--resume', is_flag=True, help='Continue an interrupted run in the output folder.')
@click.option('--open/--no-open', 'opened', default=None, help='Open the report in a browser at the end; by default if there is a display.')
def fit(
    folder: Path,
    output: Path,
    time_text: str,
    most: str | None,
    strategy: str,
    baseline: str,
    seed: int,
    resume: bool,
    opened: bool | None,
) -> None:
    """Find and train a network for the images in FOLDER, in the time given.

    FOLDER has a folder of images for each class, or folders train and test that contain such folders; a .csv, .npz or the files of
    Fashion-MNIST work, too. The command examines the images; chooses an image size, networks and numbers of epochs for this machine;
    searches for a cell; trains and tests its network; and does the same with a known network for comparison. OUTPUT gets report.html and
    the trained network.

    \b
    Example:
      nni-darts fit photos --output out/photos --time 20m
    """
    begun = time.time()
    seconds, limit = parse_duration(time_text, '--time'), None if most is None else parse_count(most)
    if not is_data(folder):
        raise InputError(f'{folder} is not a folder of images, a .csv or an .npz: give a folder with one folder of images for each class.')
    check_strategy(strategy)
    planned = (output / 'fit.json').is_file()
    if planned and not resume:
        raise InputError(f'{output} already holds a run: continue it with --resume, or choose another folder.')
    if not planned and output.is_dir() and any(output.iterdir()):
        raise InputError(f'{output} holds other files: choose an empty or a new folder.')
    with interruptible(output), Progress() as progress:
        with loading_torch():
            from nni_darts.runs.fit import Order, read_plan

            output.mkdir(parents=True, exist_ok=True)
        order = Order(seconds, strategy, None if baseline == 'none' else baseline, limit, seed)
        if planned:
            plan = read_plan(output)
            _check_same(plan, order, folder, output)
        else:
            plan = _planned(folder, order, begun, progress)
            plan.write(output)
        page = _carried_out(plan, output, planned, progress)
    click.echo(f'{"report":>16}  {page}')
    if opened or (opened is None and sys.stdout.isatty() and os.environ.get('DISPLAY')):
        webbrowser.open(page.resolve().as_uri())


def _check_same(plan: Plan, order: Order, folder: Path, output: Path) -> None:
    """Raises InputError if a given option differs from the option with which the run was begun, because the plan would ignore it."""
    from nni_darts.recipes import Recipe

    context, begun = click.get_current_context(), plan.order
    data = Path(str(Recipe.from_dict(plan.recipe).data.path))
    options = {
        'folder': ('the folder', data.resolve() == folder.resolve(), data, folder),
        'time_text': ('--time', order.seconds == begun.seconds, f'{begun.seconds:g}s', f'{order.seconds:g}s'),
        'most': ('--max-parameters', order.max_parameters == begun.max_parameters, begun.max_parameters, order.max_parameters),
        'strategy': ('--strategy', order.strategy == begun.strategy, begun.strategy, order.strategy),
        'baseline': ('--baseline', order.baseline == begun.baseline, begun.baseline, order.baseline),
        'seed': ('--seed', order.seed == begun.seed, begun.seed, order.seed),
    }
    for name, (option, same, before, now) in options.items():
        if not same and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            before, now = ('none' if value is None else value for value in (before, now))
            raise InputError(
                f'{output} holds a run that was begun with {option} {before}, not {now}; a resumed run keeps its options, '
                'so give the same ones, or choose another --output.'
            )


def _planned(folder: Path, order: Order, begun: float, progress: Progress) -> Plan:
    """Examines the data, makes the plan, and prints the choices and the expected cost."""
    from nni_darts.data.report import findings, inspect
    from nni_darts.recipes import DataSettings
    from nni_darts.runs.fit import facts_of, plan_fit

    name, path = data_kind(folder), str(folder)
    sized: dict[str, Any] = {'image_size': 32} if name in ('folder', 'csv', 'hf') else {}
    report = inspect(DataSettings(name=name, path=path, skip_unreadable=True, **sized) if sized else DataSettings(name=name, path=path))
    progress.say(f'{folder}: {report.images:,} images of {len(report.classes)} classes: {_listed(report.classes)}')
    for sentence in (*(f'{sentence}; it is left out' for sentence in report.unreadable), *findings(report)):
        progress.say(warning_line(sentence))
    facts = facts_of(name, path, report)
    plan = plan_fit(facts, report, order, begun, lambda text: progress.say(text))
    for sentence in plan.why:
        progress.say(f'  {sentence}')
    ends = datetime.fromtimestamp(begun + plan.total).strftime('%H:%M')
    parts = ', '.join(f'{part} {duration(seconds)}' for part, seconds in plan.seconds.items())
    progress.say(f'about {duration(plan.total)}, until {ends} ({parts}); {plan.peak_mib / 1024:.1f} GiB of memory')
    return plan


def _listed(names: tuple[str, ...]) -> str:
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')


def _carried_out(plan: Plan, output: Path, resumed: bool, progress: Progress) -> Path:
    """Searches, trains, compares and writes the report. Returns the path of the report."""
    import torch

    from nni_darts.genotypes.networks import KnownNetwork
    from nni_darts.recipes import Recipe
    from nni_darts.report.fits import warnings_of, write_fit
    from nni_darts.runs import fit as runs
    from nni_darts.runs.run import Run
    from nni_darts.runs.spec import RunSpec, Watch
    from nni_darts.runs.training_page import EVALUATION

    order, watch = plan.order, Watch(on_epoch=progress.epoch, on_decision=progress.decision)
    if plan.threads:
        torch.set_num_threads(plan.threads)
    recipe = Recipe.from_dict(plan.recipe)
    progress.say('searching')
    # The length of the training is fixed once the search is over; a resumed search keeps the recipe with which it was begun.
    searched = Recipe.of_folder(output / runs.SEARCH) or recipe
    search = Run(RunSpec.search(searched, order.strategy, order.seed), output / runs.SEARCH, watch).execute(resume=True)
    genotype = search.genotype
    if not plan.settled:
        with under_way('timing a few steps of training'):
            recipe = runs.settled(plan, recipe, genotype, time.time(), resumed)
        plan = plan.with_recipe(recipe)
        plan.write(output)
    progress.say(f'training the network of the found cell, {recipe.retrain.epochs} epochs')

    def trained(architecture: AnyGenotype, part: str) -> dict[str, Any]:
        spec = RunSpec.training(recipe, 'retrain', architecture, order.seed)
        return Run(spec, output / part, watch).execute(resume=True).result

    results = {runs.SEARCH: search.result, runs.RETRAIN: trained(genotype, runs.RETRAIN)}
    if order.baseline:
        progress.say(f'training {order.baseline}, {recipe.retrain.epochs} epochs')
        results[runs.BASELINE] = trained(KnownNetwork(order.baseline), runs.BASELINE)
    outcome = runs.finish(output, plan, results, resumed)
    evaluations = {
        part: json.loads((output / part / EVALUATION).read_text('utf-8')) for part in (runs.RETRAIN, runs.BASELINE) if part in results
    }
    tested = evaluations[runs.RETRAIN]
    low, high = tested['accuracy_interval']
    progress.say(f'test accuracy {100 * tested["accuracy"]:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)', result=True)
    for sentence in (*map(warning_line, warnings_of(tested)), outcome.get('verdict', '')):
        if sentence:
            progress.say(sentence, result=True)
    progress.say(f'{"took":>16}  {duration(outcome["took"])}', result=True)
    progress.say(f'{"model":>16}  {output}', result=True)
    return write_fit(
        output,
        json.loads((output / 'fit.json').read_text('utf-8')),
        outcome,
        genotype,
        evaluations,
        (f'{tested["count"]:,} test images', str(len(tested['classes']))),
    )
