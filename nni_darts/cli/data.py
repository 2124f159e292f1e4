"""Reports on data and checks whether a recipe can be run, for ``nni-darts check``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe, load_yaml, recipe_names

if TYPE_CHECKING:
    from nni_darts.data.report import DataReport

__all__ = ['check_data', 'check_recipe', 'data_kind', 'is_data', 'is_recipe']

_TABLES = {'.csv': 'csv', '.tsv': 'csv', '.npz': 'npz', '.parquet': 'hf'}
"""Ending of a data file → ``data.name`` of a recipe that reads it."""

_EXPERIMENT_KEYS = ('trialCommand', 'trialCodeDirectory', 'searchSpace', 'searchSpaceFile', 'trainingService', 'tuner', 'trial')
_RECIPE_KEYS = ('data', 'space', 'search', 'retrain')

_MOST_CLASSES = 40
_SHOWN_CLASSES = 30
_BAR = 24
"""Width of the largest class's bar, in columns."""


def is_data(target: Path) -> bool:
    """Returns whether a path holds data: a folder, or a file of images or a table."""
    return target.is_dir() or (target.is_file() and target.suffix.lower() in _TABLES)


def is_recipe(target: Path) -> bool:
    """Returns whether a name or a file is a recipe. Unreadable files are not."""
    if not target.exists():
        return str(target) in recipe_names()
    try:
        values = load_yaml(target.read_text('utf-8'), str(target))
    except (OSError, UnicodeDecodeError, InputError):
        return False
    return isinstance(values, dict) and any(key in values for key in _RECIPE_KEYS) and not any(key in values for key in _EXPERIMENT_KEYS)


def check_data(target: Path, overrides: Sequence[str], as_json: bool) -> bool:
    """Prints a report on the data in a folder or file and a suggestion to start from. Returns whether all of it can be read."""
    name = data_kind(target)
    sized = {} if name in ('npz', 'fashion-mnist') else {'image_size': 32}
    recipe = Recipe.load('photos-small', {'data': {'name': name, 'path': str(target), **sized}})
    return _report(Recipe.of_run(recipe.to_dict(), overrides, source='--set'), as_json, start=name)


def check_recipe(target: Path, overrides: Sequence[str], as_json: bool) -> bool:
    """Prints a report on a recipe's data and the recipe's mistakes. Returns whether the recipe can be run."""
    recipe = Recipe.load(str(target), overrides)
    if recipe.task == 'images':
        return _report(recipe, as_json)
    headline, warnings, errors = _run_through(recipe)
    if as_json:
        click.echo(json.dumps({'facts': headline, 'warnings': warnings, 'errors': errors}))
    else:
        _say(headline, warnings, errors)
    return not errors


def data_kind(target: Path) -> str:
    """Returns the recipe's ``data.name`` for a folder or file of data."""
    if target.is_file():
        return _TABLES[target.suffix.lower()]
    if any((target / f'train-images-idx3-ubyte{ending}').is_file() for ending in ('', '.gz')):
        return 'fashion-mnist'
    of_datasets = ('dataset_dict.json', 'state.json', '*.parquet', '*/*.parquet')
    return 'hf' if any(any(target.glob(pattern)) for pattern in of_datasets) else 'folder'


def _report(recipe: Recipe, as_json: bool, start: str = '') -> bool:
    """Prints the report on a recipe's images.

    Args:
        recipe: the recipe.
        as_json: whether to print JSON.
        start: ``data.name`` of data for which a recipe is suggested; if empty, the recipe itself is checked.
    """
    from nni_darts.data.report import findings, inspect, suggest
    from nni_darts.data.scan import refusal

    report = inspect(recipe.data)
    total = report.images + len(report.unreadable)
    # What is suggested for a folder leaves unreadable images out, as nni-darts fit does; a recipe has to say that it does.
    refused = report.unreadable and not recipe.data.skip_unreadable and not start
    errors = [refusal(report.unreadable, total).rstrip('.')] if refused else []
    facts: list[str] = []
    warnings = findings(report)
    if report.unreadable and not refused:
        warnings += report.unreadable
    if not start and not errors:
        facts, more, errors = _run_through(recipe)
        warnings += [warning for warning in more if warning not in warnings]
    suggestion = suggest(report) if start else None
    command = _command(suggestion, start, str(recipe.data.path)) if suggestion else ''
    if as_json:
        about = {} if suggestion is None else {'suggestion': {**asdict(suggestion), 'command': command}}
        click.echo(json.dumps({**report.to_dict(), **about, 'facts': facts, 'warnings': warnings, 'errors': errors}, ensure_ascii=False))
        return not errors
    _show(report, recipe.data.test_portion)
    if suggestion is not None:
        click.echo(f'{"start from":<14}{command}')
        for sentence in suggestion.why:
            click.echo(f'{"":<14}  {sentence}')
    _say(facts, warnings, errors)
    return not errors


def _run_through(recipe: Recipe) -> tuple[list[str], list[str], list[str]]:
    """Runs the checks that precede a search, a short training and a retraining. Returns facts, warnings and errors."""
    from nni_darts.runs.costs import cautions, preflight
    from nni_darts.runs.tasks import task_of

    task = task_of(recipe)
    try:
        data = task.load(recipe)
        bought = preflight(recipe, [_STRATEGY], data)
        return [f'recipe {recipe.name}; {task.describe(recipe, data)}', *bought], cautions(recipe, [_STRATEGY], data), []
    except InputError as error:
        return [], [], [str(error)]


_STRATEGY = 'darts-2nd'
"""The default of ``nni-darts search``."""


def _command(suggestion: Any, name: str, path: str) -> str:
    """Returns the command to run next: a search that starts from the suggestion."""
    usual = {'photos-small': 'folder', 'cifar10-small': 'npz', 'imagenet': 'imagenet'}
    named = {} if usual.get(suggestion.recipe) in (name, 'imagenet') else {'data.name': name}
    changes = {**named, 'data.path': path, **suggestion.changes}
    sets = ' '.join(
        f'--set {shlex.quote(f"{key}={str(value).lower() if isinstance(value, bool) else value}")}' for key, value in changes.items()
    )
    return f'nni-darts search --recipe {suggestion.recipe} {sets} --output out/search'


def _say(facts: Sequence[str], warnings: Sequence[str], errors: Sequence[str]) -> None:
    for fact in facts:
        click.echo(fact)
    for warning in warnings:
        click.echo(f'Warning: {warning}.', err=True)
    for error in errors:
        click.echo(f'Error: {error}.' if not error.endswith('.') else f'Error: {error}', err=True)


# The report -----------------------------------------------------------------------------------------------------------------------------


def _show(report: DataReport, test_portion: float) -> None:
    """Prints the report: on a terminal as a table, otherwise as lines that programs can read."""
    click.echo(f'{report.source}: {report.images:,} images of {len(report.classes)} classes')
    header, rows = _classes(report)
    if sys.stdout.isatty() and os.environ.get('TERM') != 'dumb':
        _table(header, rows)
    else:
        for row in [header, *rows]:
            click.echo(
                '  '.join(('', row[0].ljust(max(len(each[0]) for each in [header, *rows])), *(cell.rjust(7) for cell in row[1:]))).rstrip()
            )
    for name, value in _facts(report, test_portion):
        click.echo(f'{name:<14}{value}')


def _classes(report: DataReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the heading and the rows: class, training images, test images."""
    tests = report.test or ()
    entries = list(zip(report.classes, report.train, tests or [None] * len(report.classes)))
    shown = entries
    if len(entries) > _MOST_CLASSES:
        shown = sorted(entries, key=lambda entry: -entry[1])[:_SHOWN_CLASSES]
    rows = [(name, f'{train:,}', *(() if test is None else (f'{test:,}',))) for name, train, test in shown]
    if shown is not entries:
        rows.append(
            (
                f'… {len(entries) - len(shown)} smaller classes',
                f'{sum(report.train) - sum(entry[1] for entry in shown):,}',
                *(() if not tests else ('',)),
            )
        )
    rows.append(('all', f'{sum(report.train):,}', *(() if not tests else (f'{sum(tests):,}',))))
    return ('class', 'train', *(() if not tests else ('test',))), rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify='left' if name == 'class' else 'right', no_wrap=name != 'class')
    table.add_column('')
    largest = max((int(row[1].replace(',', '')) for row in rows[:-1] if not row[0].startswith('…')), default=1)
    for row in rows:
        single = row is not rows[-1] and not row[0].startswith('…')
        bar = '█' * max(1, round(_BAR * int(row[1].replace(',', '')) / max(1, largest))) if single else ''
        table.add_row(*map(Text, row), Text(bar, style='cyan'))
    Console(highlight=False).print(table)


def _facts(report: DataReport, test_portion: float) -> list[tuple[str, str]]:
    """Returns the name and value of each line below the table."""
    height, width, side = report.height, report.width, report.short_side
    facts = []
    if report.test is None:
        facts.append(('test', f'no test images: {100 * test_portion:.4g} % of these images are held out (data.test_portion)'))
    if report.one_size:
        facts.append(('size', f'{height.median:g}×{width.median:g} pixels (height × width)'))
    else:
        facts += [
            ('height', f'{height.least:g} to {height.most:g} pixels, median {height.median:g}'),
            ('width', f'{width.least:g} to {width.most:g} pixels, median {width.median:g}'),
            ('shorter side', f'{side.least:g} to {side.most:g} pixels, 95 % from {side.low:g}'),
            ('proportions', f'up to {report.aspect.most:.3g} to 1, median {report.aspect.median:.3g} to 1'),
        ]
    colours = ' (no colours)' if report.grey else ''
    facts.append(('modes', ', '.join(f'{mode} {count:,}' for mode, count in report.modes.items()) + colours))
    smallest = '' if report.imbalance == 1 else f', {report.imbalance:.3g} times the smallest'
    facts.append(('balance', f'the largest class has {100 * report.largest_class:.3g} % of the training images{smallest}'))
    if report.looked_at < report.images:
        facts.append(('opened', f'{report.looked_at:,} images, drawn at random'))
    copies = sum(len(entry.names) - 1 for entry in report.repeated)
    leaks = f', {len(report.leaks):,} of them in both the training and the test data' if report.leaks else ''
    facts.append(('copies', f'{copies:,}{leaks}' if copies else 'none'))
    facts.append(('unreadable', f'{len(report.unreadable):,}' if report.unreadable else 'none'))
    return facts
