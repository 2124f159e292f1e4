"""Rankings by a proxy and successive halving in real experiments: each trial once, and each part continues the one before it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from nni_darts.genotypes import genotype_from_code
from nni_darts.recipes import Recipe
from tests.helpers import running
from tests.helpers.live import launched
from tests.helpers.tiny import overrides, write_images

pytestmark = pytest.mark.nni


@pytest.mark.slow
def test_rankings_are_search_trials(tmp_path: Path) -> None:
    prior = {'proxy': 'naswot', 'draw': 6, 'batch_size': 16}
    settings = {
        **overrides(write_images(tmp_path / 'images.npz')),
        'retrain.epochs': 1,
        'search.settings': {'random': {'prior': prior}, 'proxy': {'proxy': 'snip', 'draw': 6, 'batch_size': 16}},
    }
    strategies = {'strategy': {'_type': 'choice', '_value': ['random', 'proxy']}}
    with launched(tmp_path, searchSpace=strategies, classArgs={'recipe': 'digits', 'set': settings}) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 600)
        metrics = {trial.key: trial.metric for trial in experiment.trials() if trial.metric is not None}
        counts = Counter(trial.key for trial in experiment.trials())
        summary = json.loads((experiment.folder / 'log' / 'summary.json').read_text())
    assert set(counts.values()) == {1} and set(counts) == {
        *('search random 1', 'select random 1.1', 'select random 1.2', 'retrain random 1'),
        *('search proxy 1', 'select proxy 1.1', 'retrain proxy 1'),
    }
    for strategy, count in (('random', 2), ('proxy', 1)):
        ranked = metrics[f'search {strategy} 1']['ranked'].split()
        assert [metrics[f'select {strategy} 1.{cell}']['arch'] for cell in range(1, count + 1)] == ranked
    assert [row['valid'] for row in summary['jobs'] if row['stage'] == 'search'] == [None, None]


@pytest.mark.slow
def test_promoted_cells_continue_from_the_trial_before(tmp_path: Path) -> None:
    """The experiment is stopped and resumed on the way; a promoted cell ends as a short training without halving does."""
    settings = {
        **overrides(write_images(tmp_path / 'images.npz')),
        'retrain.epochs': 1,
        'select.epochs': 4,
        'select.halving': {'eta': 2, 'min_epochs': 1},
        'search.random_samples': 4,
    }
    strategies = {'strategy': {'_type': 'choice', '_value': ['random']}}
    with launched(tmp_path, searchSpace=strategies, classArgs={'recipe': 'digits', 'set': settings}) as experiment:
        experiment.wait(lambda: any('@2' in trial.key for trial in experiment.trials()), 600)
        experiment.stop()
        experiment.resume()
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 600)
        trials = experiment.trials()
    metrics = {trial.key: trial.metric for trial in trials if trial.metric is not None}
    assert len(metrics) == len([trial for trial in trials if trial.metric is not None]) == 4 + 2 + 1 + 1
    (last,) = [key for key in metrics if key.startswith('select') and key.endswith('@4')]
    assert sum(metric['passes'] for key, metric in metrics.items() if key.startswith('select')) == pytest.approx(8 * 0.7)
    whole = Recipe.load('digits', settings).changed({'select.halving': None}, source='the test')
    result = running.train_cell(whole, 'select', genotype_from_code(metrics[last]['arch']), 1, tmp_path / 'whole')
    assert metrics[last]['default'] == result['valid_accuracy'] and metrics['retrain random 1']['arch'] == metrics[last]['arch']
