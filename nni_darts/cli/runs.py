"""Commands that train: search, retrain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from nni_darts.activity import loading_torch
from nni_darts.cli.genotypes import read_genotype
from nni_darts.cli.group import main
from nni_darts.cli.options import check_target, own_recipe_options, recipe_for, recipe_options, run_options, time_option, to_run
from nni_darts.cli.output import interruptible, print_result, print_warnings, say
from nni_darts.cli.progress import Progress
from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import RUN, Recipe
from nni_darts.recipes.limits import LATENCY, LimitSettings, parse_limit
from nni_darts.report.cautions import after_training
from nni_darts.runs.checks import check_genotype, check_strategies, check_strategy
from nni_darts.runs.deadline import TimeLimit
from nni_darts.runs.derive import derivation, finished_search
from nni_darts.runs.durations import parse_duration
from nni_darts.runs.folder import RESULT, WEIGHTS, check_folder, identity
from nni_darts.strategies.methods import SELECTIONS

if TYPE_CHECKING:
    from nni_darts.runs.spec import Outcome


@main.command(short_help='Search for a cell.')
@recipe_options
@click.option('--strategy', default='darts-2nd', show_default=True, help='A name from "nni-darts strategies", or package.module:Class.')
@time_option
@run_options
def search(recipe: str, overrides: tuple[str, ...], strategy: str, limit: str | None, seed: int, output: Path, resume: bool) -> None:
    """Search for a cell on the recipe's data.

    OUTPUT gets genotype.json, the cell; result.json with all settings; and a checkpoint for --resume. Strategies other than random also
    write search.html, a page that shows the search in a browser and is updated after each epoch, and metrics.jsonl, the same as data.

    \b
    Examples:
      nni-darts search --recipe digits --strategy darts-pt --set search.epochs=5 --output out/search
      nni-darts search --recipe digits --time 10m --output out/search
    """
    allowed = _allowed(output, resume, limit)
    check_strategy(strategy)
    loaded = to_run(Recipe.load(recipe, overrides))
    check_strategies(loaded, [strategy])
    check_folder(output, loaded, identity('search', seed, strategy=strategy), resume)
    _say_if_finished(output)
    allowed.kept()
    with interruptible(output), Progress() as progress:
        with loading_torch():
            from nni_darts.runs.planning import plan_search
            from nni_darts.runs.run import Run
            from nni_darts.runs.spec import RunSpec, Watch
        plan = allowed.plan(lambda seconds, begun: plan_search(loaded, strategy, seconds, seed, begun))
        watch = Watch(progress.start, progress.epoch, progress.decision)
        outcome = Run(RunSpec.search(loaded, strategy, seed, plan), output, watch).execute(resume=resume)
    _print_search(outcome, output)


@main.command(short_help='Select another cell from the supernet of a finished search.')
@click.argument('finished', metavar='SEARCH', type=click.Path(path_type=Path, file_okay=False))
@click.option('--selection', type=click.Choice(list(SELECTIONS)), help='How the cell is selected from the supernet.')
@click.option(
    '--limit',
    'limits',
    multiple=True,
    metavar='COST=AMOUNT',
    help='Largest cost, such as parameters=800k or latency_ms=4. Repeatable.',
)
@click.option(
    '--pareto',
    is_flag=False,
    flag_value='parameters',
    metavar='[COST]',
    type=click.Choice(list(LimitSettings.model_fields)),
    help='Print the front of strength against a cost: parameters (the default), multiply_adds or latency_ms.',
)
@click.option('--picture', type=click.Path(path_type=Path, dir_okay=False), help='Also draw the front of --pareto; a .svg or .png.')
@click.option(
    '--set',
    'overrides',
    multiple=True,
    metavar='KEY=VALUE',
    help='Change search.tuning_epochs, or an entry of search.settings, select, retrain or latency. Repeatable.',
)
@click.option('--output', type=click.Path(path_type=Path, file_okay=False), help='Folder for the results.')
@click.option('--resume', is_flag=True, help='Continue an interrupted --selection in the output folder.')
def derive(
    finished: Path,
    selection: str | None,
    limits: tuple[str, ...],
    pareto: str | None,
    picture: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
) -> None:
    """Select another cell from the supernet of a finished search, instead of searching again.

    SEARCH is the output folder of a search whose strategy selects by magnitude, such as darts-1st. With --selection, OUTPUT gets what a
    search with darts-1st+pt would have written, with the same cell. With --limit alone, OUTPUT gets the strongest cell within the limits,
    by the α at the end of the search; nothing is trained.

    \b
    Examples:
      nni-darts derive out/search --selection pt --output out/search-pt
      nni-darts derive out/search --limit parameters=800k --output out/small
      nni-darts derive out/search --pareto multiply_adds --picture front.svg
    """
    amounts = _amounts(limits)
    if selection is None:
        _derive_by_strength(finished, amounts, pareto, picture, output, overrides)
        return
    if pareto is not None or picture is not None:
        raise InputError('--pareto reads α, which --selection does not go by; give only one of them.')
    if output is None:
        raise InputError('--selection needs --output, the folder for the results.')
    derived = derivation(finished, selection, [*overrides, *(f'limits.{name}={value}' for name, value in amounts.items())])
    to_run(derived.recipe)
    check_folder(output, derived.recipe, derived.identity(), resume)
    _say_if_finished(output)
    with interruptible(output), Progress() as progress:
        with loading_torch():
            from nni_darts.runs.run import Run
            from nni_darts.runs.spec import Watch
        outcome = Run(derived.spec(), output, Watch(progress.start, progress.epoch, progress.decision)).execute(resume=resume)
    _print_search(outcome, output)


def _amounts(limits: tuple[str, ...]) -> dict[str, float]:
    """Returns the limits of --limit: name of a cost → amount."""
    amounts = {}
    for text in limits:
        name, _, amount = text.partition('=')
        if name not in LimitSettings.model_fields:
            *names, last = LimitSettings.model_fields
            raise InputError(f'--limit {text}: must be {", ".join(names)} or {last}, =, and an amount.')
        try:
            amounts[name] = parse_limit(name, amount)
        except ValueError as error:
            raise InputError(f'--limit {name}: {error}') from None
    return amounts


def _derive_by_strength(
    finished: Path, limits: dict[str, float], pareto: str | None, picture: Path | None, output: Path | None, overrides: tuple[str, ...]
) -> None:
    """Reads cells out of the α of a finished search. The arguments are those of the command."""
    if click.get_current_context().get_parameter_source('resume') is ParameterSource.COMMANDLINE:
        raise InputError('--resume is for --selection; without it, nothing is trained.')
    for text in overrides:
        if not text.startswith('latency.'):
            raise InputError(f'--set {text} is for --selection; without it, nothing is trained, and only latency can be changed.')
    if pareto is None and not (limits and output):
        raise InputError('give --selection, or --limit with --output, or --pareto.')
    if picture is not None:
        if pareto is None:
            raise InputError('--picture draws the front of --pareto; give both.')
        check_target('--picture', picture, ('.svg', '.png'))
    finished_search(finished)
    with loading_torch():
        from nni_darts.report.front_pictures import front_lines, write_front
        from nni_darts.runs.strongest import Searched
    if LATENCY in (pareto, *limits) and not overrides:
        known = Recipe.of_folder(finished)
        overrides = () if known is not None and known.latency is not None else ('latency.measured=torch',)
    with Progress():
        searched = Searched(finished, overrides)
    if pareto is not None:
        found = searched.front(pareto, limits)
        for line in front_lines([(cell.costs, cell.strength, cell.genotype.code()) for cell in found]):
            click.echo(line)
        if picture is not None:
            write_front(picture, [(cell.costs[pareto], cell.strength) for cell in found], pareto)
            click.echo(f'wrote {picture}')
    if output is not None:
        if not limits:
            raise InputError('--output needs --limit, which says which cell of the front is written.')
        strongest = searched.within(limits)
        result = searched.write(strongest, limits, output)
        click.echo(strongest.genotype.to_text())
        print_result(result, output)


def _print_search(outcome: Outcome, output: Path) -> None:
    """Prints the warnings, the cell and the result of a search."""
    from nni_darts.report.searches import warnings_in

    print_warnings([*warnings_in(output), *after_training(outcome.result)])
    click.echo(outcome.genotype.to_text())
    print_result(outcome.result, output)


@main.command(short_help='Train the network of a cell from scratch.')
@own_recipe_options
@click.option(
    '--genotype',
    'source',
    help='A published name, a file or folder with a genotype, FILE.py:NAME, - for a pipe, a pasted Genotype(…) or a code. '
    'Default: the cell of --weights.',
)
@click.option(
    '--weights',
    type=click.Path(path_type=Path, file_okay=False),
    help='Output folder of a finished training; start from its weights, as far as they fit.',
)
@click.option(
    '--more',
    type=click.IntRange(1, 1_000_000),
    metavar='EPOCHS',
    help='Train the finished network in OUTPUT for this many more epochs, at a tenth of its learning rate.',
)
@click.option(
    '--stage',
    default='retrain',
    show_default=True,
    type=click.Choice(['select', 'retrain']),
    help="Which of the recipe's trainings to run: select is the short one by which cells are compared, without a test.",
)
@time_option
@run_options
def retrain(
    recipe: str | None,
    overrides: tuple[str, ...],
    source: str | None,
    weights: Path | None,
    more: int | None,
    stage: str,
    limit: str | None,
    seed: int,
    output: Path,
    resume: bool,
) -> None:
    """Train the network of a cell, from scratch or from the weights of another training, and test it once at the end.

    Without --recipe, the recipe and data are those of --weights if it is given, else those of the search that found the cell, if GENOTYPE
    is its folder or a file in it. OUTPUT gets weights.pt, result.json with all settings, metrics.jsonl, and a checkpoint for --resume.

    \b
    Examples:
      nni-darts retrain --genotype out/search --output out/retrain
      nni-darts retrain --recipe photos-small --set data.path=photos --genotype DARTS_V2 --output out/photos
      nni-darts retrain --more 10 --output out/retrain
      nni-darts retrain --weights out/retrain --set data.path=new_photos --output out/new
    """
    allowed = _allowed(output, resume, limit)
    if more is not None:
        _refuse_beside_more()
        _check_finished('--output', output)
        to_run(Recipe.of_folder(output) or Recipe.load('digits'))
    else:
        loaded, genotype = _named_training(recipe, overrides, source, weights, stage)
        check_folder(output, loaded, identity(stage, seed, genotype=genotype, weights=weights), resume)
        _say_if_finished(output)
        allowed.kept()
    with interruptible(output), Progress() as progress:
        with loading_torch():
            from nni_darts.runs.planning import plan_training
            from nni_darts.runs.run import Run, train_longer
            from nni_darts.runs.spec import RunSpec, Watch
        watch = Watch(progress.start, progress.epoch)
        if more is not None:
            result = train_longer(output, more, resume=resume, watch=watch)
        else:
            plan = allowed.plan(lambda seconds, begun: plan_training(loaded, stage, genotype, seconds, seed, begun))
            spec = RunSpec.training(loaded, stage, genotype, seed, weights=weights, plan=plan)
            result = Run(spec, output, watch).execute(resume=resume).result
    print_warnings(after_training(result))
    print_result(result, output)


def _allowed(output: Path, resume: bool, limit: str | None) -> TimeLimit:
    return TimeLimit(output, resume, None if limit is None else parse_duration(limit, '--time'))


def _named_training(
    recipe: str | None, overrides: tuple[str, ...], source: str | None, weights: Path | None, stage: str
) -> tuple[Recipe, AnyGenotype]:
    """Returns the recipe and the cell of a new training after checking that they fit each other. The arguments are those of the command."""
    if weights is not None:
        _check_finished('--weights', weights)
    source = source or (None if weights is None else str(weights))
    if source is None:
        raise InputError('no cell to train; name one with --genotype, or start from a finished training with --weights or --more.')
    loaded = to_run(recipe_for(source if weights is None else str(weights), recipe, overrides))
    genotype = read_genotype(source)
    check_genotype(loaded, genotype, stage)
    return loaded, genotype


def _refuse_beside_more() -> None:
    """Raises InputError for an option that cannot be combined with --more."""
    context = click.get_current_context()
    options = {
        'source': '--genotype',
        'weights': '--weights',
        'recipe': '--recipe',
        'overrides': '--set',
        'stage': '--stage',
        'seed': '--seed',
        'limit': '--time',
    }
    for name, option in options.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(
                f'{option} cannot be combined with --more, which continues the training in --output with its own settings; '
                'to start another training from its weights, use --weights.'
            )


def _say_if_finished(output: Path) -> None:
    """Says that there is nothing left to resume in a folder, if its run is finished."""
    if (output / RESULT).is_file():
        say(f'The run in {output} is already finished; its results follow.', err=True)


def _check_finished(option: str, folder: Path) -> None:
    """Raises InputError if a folder does not have a finished training. Does not import torch."""
    for name in (RUN, WEIGHTS, RESULT):
        if not (folder / name).is_file():
            raise InputError(f'{option}: {folder} has no {name}, so it is not the output folder of a finished nni-darts retrain.')
