"""Commands that list what is available: strategies, spaces, recipes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from types import NoneType
from typing import Any

import click
import yaml
from pydantic_core import PydanticUndefined

from nni_darts.cli.group import main
from nni_darts.cli.options import NameFrom
from nni_darts.errors import InputError, sentence
from nni_darts.genotypes.kinds import space_summaries
from nni_darts.recipes import recipe_names, recipe_text
from nni_darts.strategies.explanations import EXPLANATIONS, SELECTION_EXPLANATIONS, Explanation
from nni_darts.strategies.families import FAMILIES
from nni_darts.strategies.methods import METHODS, SELECTIONS
from nni_darts.strategies.registry import find, installed, names


@main.command(short_help='List the strategies, or explain one.')
@click.argument('name', metavar='[NAME]', required=False, type=NameFrom(names))
def strategies(name: str | None) -> None:
    """List the strategies for --strategy and for experiments. With NAME, explain that strategy: the idea, the paper, when to use it, its
    cost, and its settings with their ranges and defaults.

    \b
    Example:
      nni-darts strategies darts-pt
    """
    if name is not None:
        _explain(name)
        return
    packages = {name: point.dist.name if point.dist else point.module for name, point in installed().items()}
    width = max(map(len, [*METHODS, *packages]))
    for family in FAMILIES:
        click.echo(f'{family}:')
        for entry in METHODS.values():
            if entry.family == family:
                click.echo(f'  {entry.name:<{width}}  {entry.summary} ({entry.paper}{_arxiv(EXPLANATIONS[entry.name])})')
    if packages:
        click.echo('From other packages:')
    for own, package in packages.items():
        click.echo(f'  {own:<{width}}  from the package {package}')
    others = ', '.join(entry.name for entry in METHODS.values() if not entry.relaxed)
    click.echo(f'\nAll but {others} also take another selection as a suffix, as in darts-2nd+pt (darts-pt is darts-1st+pt):')
    for suffix, (_, summary, paper, _) in SELECTIONS.items():
        click.echo(f'  {"+" + suffix:<{width}}  {summary} ({paper}{_arxiv(SELECTION_EXPLANATIONS[suffix])})')


def _arxiv(explanation: Explanation) -> str:
    """Returns the arXiv number of the first paper, with a separator in front; nothing if it is not on arXiv."""
    number = explanation.papers[0].arxiv
    return f'; arXiv:{number}' if number else ''


def _explain(name: str) -> None:
    try:
        entry = find(name)
    except ValueError as error:
        raise InputError(sentence(str(error))) from None
    base, _, suffix = entry.name.partition('+')
    own = Explanation(find(base).summary, '', ())
    explanations = [EXPLANATIONS.get(base, own), *([SELECTION_EXPLANATIONS[suffix]] if suffix else [])]
    click.echo(name + (f' = {entry.name}' if name != entry.name else '') + '\n')
    for number, explanation in enumerate(explanations):
        click.echo(_wrapped((f'+{suffix}: ' if number else '') + explanation.idea) + '\n')
    # Users choose a name with a suffix for the sake of the selection, so its advice is the relevant one.
    if explanations[-1].when:
        click.echo(_field('when', explanations[-1].when))
    for paper in dict.fromkeys(paper for explanation in reversed(explanations) for paper in explanation.papers):
        click.echo(_field('paper', f'{paper.title}, {f"arXiv:{paper.arxiv}" if paper.arxiv else paper.url}'))
    if cost := _cost(explanations):
        click.echo(_field('cost', cost))
    settings = entry.settings()
    if not settings:
        click.echo(_field('settings', 'none'))
        return
    click.echo("\nSettings, in a recipe or an experiment's set as search.settings: {" + name + ': {NAME: VALUE}}\n')
    for setting in settings:
        default = 'no default' if setting.default is PydanticUndefined else f'default {_shown(setting.default)}'
        default += f', or the value of {setting.recipe}' if setting.recipe else ''
        click.echo(f'  {setting.name}: {setting.allowed}; {default}')
        if setting.meaning:
            click.echo(_wrapped(setting.meaning, '      '))


def _cost(explanations: Sequence[Explanation]) -> str:
    """Returns the cost of a search relative to one with darts-1st, as one or more sentences."""
    cost, words = explanations[0].cost, [explanation.cost_note for explanation in explanations if explanation.cost_note]
    if cost is not None:
        times = 'As' if cost == 1 else f'{cost:g} times as'
        words.insert(0, f'{times} many passes over the training data as darts-1st in a search of the same length.')
    return ' '.join(words)


def _shown(value: Any) -> str:
    """Returns a value in YAML's notation."""
    plain = list(value) if isinstance(value, tuple) else value
    if not isinstance(plain, (list, dict, str, int, float, NoneType)):  # a setting of the user's own strategy
        return repr(plain)
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix('...\n').strip()


def _field(name: str, text: str) -> str:
    return _wrapped(f'{name:<9} {text}', '', ' ' * 10)


def _wrapped(text: str, indent: str = '', following: str | None = None) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent if following is None else following)


@main.command(short_help='List the recipes, or print one.')
@click.argument('name', metavar='[NAME]', required=False, type=NameFrom(recipe_names))
def recipes(name: str | None) -> None:
    """List the recipes, which name data and settings. With NAME, print that recipe, a YAML file with comments, ready to edit.

    \b
    Example:
      nni-darts recipes digits > mine.yml
    """
    if name is not None:
        click.echo(recipe_text(name), nl=False)
        return
    width = max(map(len, recipe_names()))
    for known in recipe_names():
        click.echo(f'{known:<{width}}  {recipe_text(known).splitlines()[0].lstrip("# ")}')


@main.command(short_help='List the search spaces.')
def spaces() -> None:
    """List the spaces that a recipe can name as space.name: spaces of this package, and spaces that installed packages register.

    A space of your own needs no registration: name it package.module:Class.

    \b
    Example:
      nni-darts spaces
    """
    listed = space_summaries()
    width = max(map(len, listed))
    for name, summary in listed.items():
        click.echo(f'{name:<{width}}  {summary}')
