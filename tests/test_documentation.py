"""The examples in the documentation work: Python blocks run, commands are valid, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.recipes import Recipe
from nni_darts.strategies.registry import check_name
from tests.helpers.pictures import train_on_photos

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), *sorted((ROOT / 'examples').rglob('README.md'))]
MENTIONS = ' '.join(page.read_text('utf-8').replace('\n', ' ') for page in PAGES)
QUICK = ('draw', 'cost', 'strategies', 'recipes')
"""Commands that are run, where they need no files of the user; the others are only parsed."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text('utf-8'), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line that calls nni-darts, in blocks and in the text."""
    found = []
    for page in PAGES:
        lines = [line for block in blocks(page, 'sh') for line in block.replace('\\\n', ' ').splitlines()]
        lines += re.findall(r'`(nni-darts [a-z]+ [^`]*)`', page.read_text('utf-8').replace('\n', ' '))
        found += [(page.name, line.partition('  #')[0].strip()) for line in lines if line.startswith('nni-darts ')]
    assert len(found) > 20
    return sorted(set(found))


@pytest.mark.parametrize(('page', 'line'), commands(), ids=lambda value: value)
def test_commands(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line.partition(' > ')[0])[1:]
    if words[0].startswith('-') or words == ['trial']:
        return
    command = main.commands[words[0]]
    monkeypatch.chdir(ROOT)
    try:
        values = command.make_context(words[0], list(words[1:])).params
    except click.exceptions.Exit:  # --help
        return
    except click.MissingParameter:
        assert f'`{line}`' in MENTIONS, line  # in the text a command may be named without all it needs
        return
    # A line before writes the table of latencies.
    overrides = [item for item in values.get('overrides', ()) if '...' not in item and not item.startswith('latency.table=')]
    if not any('=ghosts:' in item for item in overrides) and values.get('recipe') and not values['recipe'].endswith('.yml'):
        Recipe.load(values['recipe'], overrides)
    if ':' not in values.get('strategy', ''):
        check_name(values.get('strategy', 'random'))
    file = values.get('experiment') or values.get('target')
    if file is not None and file.suffix == '.yml' and file.parent.name == 'examples':
        assert file.is_file()
    if words[0] in QUICK and not any(word in line for word in ('out/', 'data.path', 'NAME', 'tempered:', 'ghosts:')):
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output


def prepare_model(folder: Path) -> None:
    """Creates the files that the page on using models presupposes: ``photos``, ``photo.jpg``, ``out/retrain``, ``net.onnx``."""
    train_on_photos(folder)
    done = CliRunner().invoke(main, ['export', 'out/retrain', '--onnx', 'net.onnx'])
    assert done.exit_code == 0, done.output


OWN_STRATEGY = ROOT / 'docs' / 'own-strategy.md'
"""Its blocks are run by tests/nni_darts/test_own_strategy.py."""
PYTHON = [page for page in PAGES if blocks(page, 'python') and page not in (ROOT / 'README.md', OWN_STRATEGY)]


@pytest.mark.parametrize('page', PYTHON, ids=lambda page: page.name)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / f'{page.stem.replace("-", "_")}.py'
    script.write_text(re.sub(r'^EPOCHS = \d+', 'EPOCHS = 1', '\n'.join(blocks(page, 'python')), flags=re.MULTILINE))
    if page.stem == 'using-models':
        pytest.importorskip('onnxruntime')
        prepare_model(tmp_path)
    names = runpy.run_path(str(script))
    if page.stem == 'using-models':
        shown = capsys.readouterr().out.splitlines()
        network = names['model'].network(names['model'].transform('photo.jpg')[None]).detach().numpy()
        np.testing.assert_allclose(names['logits'], network, atol=1e-4)  # of the block without nni_darts
        assert shown[-1] == names['model'].predict('photo.jpg')[0].label and names['probabilities'].shape == (3, 4)
    elif page.stem == 'own-data':
        monkeypatch.syspath_prepend(tmp_path)
        script.rename(tmp_path / 'mydata.py')
        from nni_darts.data import load_images

        assert load_images(Recipe.load('digits', ['data.name=mydata:load']).data).num_classes == 2
        del sys.modules['mydata']
    else:
        assert 'experiment' in names and ('Genotype(normal=' in (text := capsys.readouterr().out) or "'inputs'" in text)


def test_the_readmes_python_is_part_of_the_example() -> None:
    """The example itself runs in tests/test_examples.py."""
    example = (ROOT / 'examples' / 'python_api.py').read_text('utf-8').splitlines()
    for block in blocks(ROOT / 'README.md', 'python'):
        for line in block.splitlines():
            assert not line or line in example, line


def test_own_strategy_is_short() -> None:
    for block in blocks(OWN_STRATEGY, 'python'):
        assert len([line for line in block.splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r'^```.*?^```', '', page.read_text('utf-8'), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r'\]\(([^)#:]+)\)', text):
        assert (page.parent / target).exists(), target
