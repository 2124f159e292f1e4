"""Rankings by a proxy in a real experiment: a search trial each, then the cells that it names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.live import launched
from tests.helpers.tiny import overrides, write_images

pytestmark = pytest.mark.nni


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
