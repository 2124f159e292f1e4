"""Recipes printed, strategies explained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.recipes import Recipe, recipe_names
from nni_darts.strategies.families import FAMILIES
from nni_darts.strategies.methods import METHODS
from nni_darts.strategies.registry import find, names


def shown(*words: str) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize('name', recipe_names())
def test_a_printed_recipe_is_that_recipe(name: str, tmp_path: Path) -> None:
    text = shown('recipes', name)
    assert text.startswith('# ')
    (tmp_path / 'mine.yml').write_text(text)
    mine, own = (Recipe.load(source).to_dict() for source in (str(tmp_path / 'mine.yml'), name))
    assert {**mine, 'name': ''} == {**own, 'name': ''}


def test_lists_name_everything() -> None:
    assert [line.split()[0] for line in shown('recipes').splitlines()] == recipe_names()


def test_strategies_are_listed_by_family_with_their_papers() -> None:
    families, family = dict[str, list[str]](), ''
    for line in shown('strategies').split('\n\n')[0].splitlines():
        if line.startswith('  '):
            families[family].append(line.split()[0])
            assert re.search(r'; arXiv:\d{4}\.\d{5}\)$', line) or 'NeurIPS 2023)' in line
        else:
            family = line.removesuffix(':')
            families[family] = []
    listed = {family: [name for name, method in METHODS.items() if method.family == family] for family in FAMILIES}
    assert families == listed and sorted(name for of in listed.values() for name in of) == sorted(METHODS)


@pytest.mark.parametrize('name', names())
def test_every_setting_of_a_strategy_is_explained(name: str) -> None:
    text = shown('strategies', name)
    assert 'arXiv:' in text and '\ncost ' in text and '\nwhen ' in text
    settings = find(name).settings()
    assert settings or 'settings  none' in text
    lines = [line for line in text.splitlines() if line.startswith('  ') and line[2] != ' ']
    assert len(lines) == len(settings)
    for setting, line in zip(settings, lines):
        default = line.partition('; default ')[2].partition(', or the value of search.')[0]
        assert line.startswith(f'  {setting.name}: {setting.allowed}; ')
        assert yaml.safe_load(default) == json.loads(json.dumps(setting.default))


def test_a_setting_that_a_recipe_gives_says_so() -> None:
    assert 'epochs_between: a whole number from 1; default 5, or the value of search.tuning_epochs' in shown('strategies', 'darts-pt')


def test_an_alias_says_what_it_stands_for() -> None:
    assert shown('strategies', 'darts-pt').startswith('darts-pt = darts-1st+pt\n')


def test_unknown_names() -> None:
    for words, known in ((['recipes', 'dgits'], 'digits'), (['strategies', 'darts'], 'darts-1st')):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and known in done.stderr and done.stderr.endswith('.\n')
