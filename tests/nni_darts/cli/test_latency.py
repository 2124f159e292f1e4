"""Commands about latency: ``latency`` writes a table, ``cost`` predicts by it, ``derive`` reads cells by it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import LatencyTable
from nni_darts.runs.latencies import predicted_latency
from nni_darts.runs.tasks import task_of
from tests.helpers import running, tiny
from tests.helpers.latencies import write_table

SMALL = ['retrain.channels=2', 'retrain.cells=3', 'space.nodes=1', 'space.operations=[skip_connect, sep_conv_3x3]']
SET = [word for change in SMALL for word in ('--set', change)]


def invoke(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(map(str, words)))
    if result.exit_code == 1:
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_written_table_predicts_what_cost_prints_and_another_process_measures_beside_it(tmp_path: Path) -> None:
    path = tmp_path / 'latency.yml'
    code, output, _ = invoke('latency', *SET, '--threads', 1, '--batch', 2, '--output', path)
    assert code == 0 and output.startswith('6 latencies of operations, and ') and output.endswith(f'wrote {path}\n')
    table = LatencyTable.read(path)
    assert table.batch == 2 and table.threads == 1
    recipe = Recipe.load('digits', [*SMALL, f'latency.table={path}'])
    cell = recipe.space.random_cell(random.Random(1))
    code, output, _ = invoke('cost', cell.to_text(), *SET, '--set', f'latency.table={path}', '--latency', '--json')
    result = json.loads(output)
    assert result['latency_ms'] == predicted_latency(cell, recipe, task_of(recipe).shape(recipe)) > 0
    assert set(result) == {'parameters', 'multiply_adds', 'latency_ms', 'measured_ms', 'spread_ms'} and result['measured_ms'] > 0
    code, output, _ = invoke('cost', cell.to_text(), *SET, '--set', f'latency.table={path}')
    assert f'latency-ms  {result["latency_ms"]:.3f}' in output and 'measured' not in output
    code, output, said = invoke('cost', 'DARTS_V2', *SET, '--set', f'latency.table={path}')
    assert code == 0 and 'latency-ms is not predicted, because this is not a cell of the space' in said and 'latency' not in output


def test_wrong_words_get_one_sentence_each(tmp_path: Path) -> None:
    for words, message in (
        (['latency', '--output', tmp_path / 'latency.json'], 'ends in .yml or .yaml'),
        (['latency', '--output', tmp_path / 'no' / 'latency.yml'], 'there is no folder'),
        (['latency', '--recipe', 'pydoc', '--output', tmp_path / 'latency.yml'], 'latency_ms is predicted for networks of image cells'),
        (['cost', 'DARTS_V2-RNN', '--recipe', 'ptb', '--set', 'data.path=.', '--latency'], '--latency measures networks for images'),
        (['search', '--set', 'latency.table=absent.yml', '--output', tmp_path / 'out'], 'latency.table: cannot read absent.yml'),
    ):
        code, output, said = invoke(*words)
        assert code == 2 and message in said and not output, said
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('search')
    images = tiny.write_images(folder / 'images.npz')
    running.search(Recipe.load('digits', {**tiny.overrides(images), 'space.nodes': 1}), 'darts-1st', 1, folder / 'out')
    return folder / 'out'


def test_derive_reads_cells_by_a_table_that_the_search_did_not_have(search: Path, tmp_path: Path) -> None:
    recipe = Recipe.of_folder(search)
    assert recipe is not None
    given = ['--set', f'latency.table={write_table(tmp_path / "phone.yml", recipe)}']
    code, output, _ = invoke('derive', search, '--pareto', 'latency_ms', *given)
    assert code == 0 and 'latency, ms  strength' in output
    least = float(output.splitlines()[1].split()[2])
    code, output, _ = invoke('derive', search, '--limit', f'latency_ms={least}', *given, '--output', tmp_path / 'quick')
    result = json.loads((tmp_path / 'quick' / 'result.json').read_text())['result']
    assert code == 0 and result['latency_ms'] == least
    assert f'latency-ms  {least:.3f}' in invoke('cost', tmp_path / 'quick')[1]
    for words, message in (
        (['--limit', 'latency_ms=soon'], '--limit latency_ms: must be a number of milliseconds, such as 4.5'),
        (['--limit', 'latency=4'], 'must be parameters, multiply_adds or latency_ms'),
        (['--limit', f'latency_ms={least / 2}', *given, '--output', tmp_path / 'no'], 'ms of predicted latency; raise the limit'),
        (['--pareto', 'latency_ms', '--set', 'search.epochs=3'], 'nothing is trained, and only latency can be changed'),
    ):
        code, _, said = invoke('derive', search, *words)
        assert code == 2 and message in said, said
    assert not (tmp_path / 'no').exists()


def test_derive_measures_if_nothing_else_is_said(search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    code, _, _ = invoke('derive', search, '--limit', 'latency_ms=90000', '--output', tmp_path / 'quick')
    kept = Recipe.of_folder(tmp_path / 'quick')
    assert code == 0 and kept is not None and kept.latency is not None and kept.latency.measured == 'torch' and kept.latency.table
    assert json.loads((tmp_path / 'quick' / 'result.json').read_text())['result']['latency_ms'] > 0
