"""An experiment measures its table of latencies once, in a process of its own, and every trial gets the same numbers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from nni_darts.errors import InputError
from nni_darts.experiment.latencies import LATENCY, LatencyTables, check_rows
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.tuner import SearchAndRetrain
from nni_darts.experiment.validate import check_experiment
from nni_darts.recipes import Recipe
from nni_darts.recipes.latency import LatencyTable
from tests.helpers.latencies import write_table
from tests.helpers.live import launched, write_experiment
from tests.helpers.tiny import overrides, write_images

TINY = {'retrain.channels': 2, 'retrain.cells': 3, 'space.nodes': 1, 'space.operations': ['skip_connect', 'sep_conv_3x3']}


def measured(tables: LatencyTables) -> Recipe | None:
    """Waits for the process that measures."""
    deadline = time.monotonic() + 240
    while (found := tables.update()) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_a_process_measures_once_and_a_resumed_experiment_reads_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'log').mkdir()
    recipe = Recipe.load('digits', {**TINY, 'limits.latency_ms': 900})
    tables = LatencyTables(tmp_path / 'log', recipe)
    assert tables.update() is None  # it does not wait
    found = measured(tables)
    assert found is not None and found.latency is not None and found.latency.table is not None
    assert found.latency.measured == 'torch' and found.latency.table.network['cells'] == 3  # type: ignore[index]
    # The machine has changed since, and the cache is gone.
    (file,) = (tmp_path / 'cache' / 'nni-darts' / 'latency').glob('*.yml')
    file.unlink()
    assert LatencyTables(tmp_path / 'log', recipe).update() == found
    # Other settings need another table.
    other = LatencyTables(tmp_path / 'log', recipe.changed({'latency.batch': 2}, source=''))
    assert other.update() is None
    other.close()


def test_the_reason_why_nothing_could_be_measured_ends_the_experiment_in_one_sentence(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {'data.name': 'npz', 'data.path': str(tmp_path / 'absent.npz'), 'limits.latency_ms': 900})
    tables = LatencyTables(tmp_path, recipe)
    with pytest.raises(InputError, match='absent.npz'):
        measured(tables)
    assert not (tmp_path / LATENCY).exists()


def test_rows_that_change_sizes_are_refused(tmp_path: Path) -> None:
    space = {
        'strategy': {'_type': 'choice', '_value': ['darts-1st']},
        'retrain.channels': {'_type': 'choice', '_value': [4, 8]},
    }
    arguments = {'recipe': 'digits', 'set': {'limits.latency_ms': 5}}
    path = write_experiment(tmp_path, searchSpace=space, classArgs=arguments)
    (error,) = check_experiment(path).errors
    assert error.startswith(
        'searchSpace: the row darts-1st retrain.channels=4 changes the space or retrain, but latencies are measured once'
    )
    rows = ('darts-1st search.epochs=3', 'random')
    check_rows(Protocol(Recipe.load('digits', {'limits.latency_ms': 5}), rows, (1,)))


def test_the_tuner_finds_a_table_in_its_code_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'code').mkdir()
    (tmp_path / 'logs').mkdir()
    path = write_table(tmp_path / 'code' / 'latency.yml', Recipe.load('digits'))
    monkeypatch.chdir(tmp_path / 'logs')
    monkeypatch.syspath_prepend(str(tmp_path))  # so that the list is restored
    import sys

    sys.path.append(str(tmp_path / 'code'))
    for given in ({'latency.table': 'latency.yml'}, ['latency.table=latency.yml']):
        tuner = SearchAndRetrain(recipe='digits', set=given)
        assert tuner.error is None and tuner.recipe.latency is not None
        assert tuner.recipe.latency.table == LatencyTable.read(path)
    assert 'cannot read other.yml' in str(SearchAndRetrain(recipe='digits', set={'latency.table': 'other.yml'}).error)


@pytest.mark.nni
@pytest.mark.slow
def test_all_trials_of_an_experiment_have_the_same_measured_table(tmp_path: Path) -> None:
    settings = {**overrides(write_images(tmp_path / 'images.npz')), 'limits.latency_ms': 90_000}
    arguments = {'recipe': 'digits', 'set': settings}
    space = {'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}, 'seed': {'_type': 'choice', '_value': [1]}}
    with launched(tmp_path, searchSpace=space, classArgs=arguments, trialConcurrency=2) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE')
        trials = experiment.trials()
        table = json.loads((experiment.folder / 'log' / LATENCY).read_text())['latency']
    assert {trial.parameters['stage'] for trial in trials} == {'search', 'select', 'retrain'}
    assert all(trial.parameters['recipe']['latency'] == table for trial in trials) and table['table']['fixed_ms'] > 0
    assert all(trial.metric is not None and 0 < trial.metric['latency_ms'] < 90_000 for trial in trials)
