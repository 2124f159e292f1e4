"""Options that several commands have, and the recipe that they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from nni_darts.errors import InputError
from nni_darts.experiment.records import experiments
from nni_darts.recipes import Recipe
from nni_darts.runs.checks import check_data_path
from nni_darts.runs.loggers import check_logger

__all__ = [
    'TABLES',
    'NameFrom',
    'check_target',
    'folder_of',
    'identifier_argument',
    'own_recipe_options',
    'port_options',
    'recipe_for',
    'recipe_options',
    'run_options',
    'time_option',
    'to_run',
]


TABLES = ('.csv', '.tsv', '.txt')
"""Endings of the files that ``--csv`` writes."""


def check_target(option: str, path: Path, endings: tuple[str, ...], source: Path | None = None) -> None:
    """Checks the name of a file that a command will write, so that a typing mistake cannot overwrite weights or photos.

    Args:
        option: the option that names the file, for the message.
        path: the file, which is replaced if it exists.
        endings: the endings that the file's name may have.
        source: a file that the command reads, and must not write.

    Raises:
        InputError: if the name has another ending, the folder is missing, or the path is a folder or the source.
    """
    if path.suffix not in endings:
        allowed = ' or '.join(filter(None, (', '.join(endings[:-1]), endings[-1])))
        raise InputError(f'{option} {path}: name a file that ends in {allowed}.')
    if not path.absolute().parent.is_dir():
        raise InputError(f'{option} {path}: there is no folder {path.parent}.')
    if path.is_dir():
        raise InputError(f'{option} {path} is a folder; name a file.')
    if source is not None and path.exists() and path.samefile(source):
        raise InputError(f'{option} {path} is {source} itself, which would be overwritten; name another file.')


class NameFrom(click.ParamType):  # type: ignore[type-arg]  # older versions of click take no type argument
    """Text that the shell completes to one of several names; the command itself reports any other text.

    Args:
        names: function that returns the names, called when the shell completes.
    """

    name = 'text'

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def identifier_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument ID, an experiment's id, which may be omitted."""
    return click.argument('identifier', metavar='[ID]', required=False, type=NameFrom(identifiers))(function)


def identifiers() -> list[str]:
    try:
        return [record.id for record in experiments()]
    except InputError:
        return []  # only the shell asks here; the command itself reports what is wrong with the list


_SEEDS = click.IntRange(1, 2**31 - 1)


def recipe_options(function: Callable[..., Any], of_folder: bool = False) -> Callable[..., Any]:
    function = click.option(
        '--set', 'overrides', multiple=True, metavar='KEY=VALUE', help='Change one setting, for example search.epochs=5. Repeatable.'
    )(function)
    shown = 'that of the folder of GENOTYPE, else digits' if of_folder else 'digits'
    help = 'Name ("nni-darts recipes" lists them) or path of a .yml file.'
    return click.option('--recipe', default=None if of_folder else 'digits', show_default=shown, help=help)(function)


def own_recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    return recipe_options(function, of_folder=True)


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option('--resume', is_flag=True, help='Continue an interrupted run in the output folder.')(function)
    folder = click.Path(path_type=Path, file_okay=False)
    return click.option('--output', required=True, type=folder, help='Folder for the results.')(function)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = output_options(function)
    return click.option('--seed', default=1, show_default=True, type=_SEEDS, help='Seed of all random numbers.')(function)


def time_option(function: Callable[..., Any]) -> Callable[..., Any]:
    help = 'End within this time, such as 90s, 30m, 2h or 1h30m. A few steps are timed, and as many epochs are planned as fit.'
    return click.option('--time', 'limit', metavar='DURATION', help=help)(function)


def port_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option('--wait', is_flag=True, help='Wait for the end and print the table. The page stays up.')(function)
    return click.option('--port', default=8080, show_default=True, type=click.IntRange(1024, 65535), help='Port of the web page.')(function)


def recipe_for(source: str, recipe: str | None, overrides: tuple[str, ...]) -> Recipe:
    """Returns the named recipe, else the recipe of the search or training whose folder holds the genotype, else ``digits``."""
    if recipe is None:
        folder = folder_of(source)
        found = None if folder is None else Recipe.of_folder(folder, overrides)
        if found is not None:
            return found
    return Recipe.load(recipe or 'digits', overrides)


def folder_of(source: str) -> Path | None:
    """Returns the output folder from which a genotype is read; None for a name or a code."""
    if os.path.isdir(source):
        return Path(source)
    return Path(source).parent if os.path.isfile(source) else None


def to_run(loaded: Recipe) -> Recipe:
    """Hides GPUs before torch is imported if the recipe uses the CPU, because torch would allocate memory on them. Returns the recipe.

    Raises:
        InputError: if the path of the data does not exist, or the package of the logger is not installed.
    """
    check_data_path(loaded)
    check_logger(loaded)
    if loaded.accelerator == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    return loaded
