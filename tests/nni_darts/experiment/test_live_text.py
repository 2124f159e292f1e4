"""A real NNI experiment on text: perplexity is the metric, and lower is better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_darts.genotypes import genotype_from_code
from nni_darts.genotypes.recurrent import RnnGenotype
from tests.helpers.live import ENVIRONMENT, check_logs, launched
from tests.helpers.tiny import text_overrides, write_text

pytestmark = pytest.mark.nni

OFFICE = {
    **{name: value for name, value in ENVIRONMENT.items() if name.lower() != 'no_proxy'},
    **dict.fromkeys(('http_proxy', 'HTTP_PROXY', 'https_proxy', 'all_proxy'), 'http://127.0.0.1:9'),
    'SLURM_NTASKS': '4',
}
"""A job of SLURM behind a proxy that does not answer."""
STRATEGIES = ['darts-2nd', 'random']


def test_a_recurrent_experiment_goes_all_the_way(tmp_path: Path) -> None:
    settings = {**text_overrides(write_text(tmp_path)), 'select.epochs': 2}
    arguments = {'recipe': 'pydoc', 'set': settings, 'optimize_mode': 'minimize'}
    space = {'strategy': {'_type': 'choice', '_value': STRATEGIES}, 'seed': {'_type': 'choice', '_value': [1]}}
    with launched(tmp_path, OFFICE, searchSpace=space, classArgs=arguments) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 420)
        trials = experiment.trials()
        check_logs(experiment)
        summary = json.loads((experiment.folder / 'log' / 'summary.json').read_text())
        search = json.loads((experiment.folder / 'log' / 'search-darts-2nd-1.json').read_text())
    metrics = {trial.key: trial.metric for trial in trials if trial.metric is not None}
    expected = {'search darts-2nd 1', 'select darts-2nd 1', 'select random 1.1', 'select random 1.2'}
    assert set(metrics) == expected | {f'retrain {name} 1' for name in STRATEGIES}
    assert all(1 < metric['default'] < 30 for metric in metrics.values())
    drawn = [metrics['select random 1.1'], metrics['select random 1.2']]
    best = min(drawn, key=lambda metric: metric['default'])
    assert metrics['retrain random 1']['arch'] == best['arch']
    for name in STRATEGIES:
        assert metrics[f'retrain {name} 1']['test_perplexity'] > 1
        assert isinstance(genotype_from_code(metrics[f'retrain {name} 1']['arch']), RnnGenotype)
    assert summary['metric'] == 'perplexity' and summary['over']
    (random_row,) = [row for row in summary['strategies'] if row['strategy'] == 'random']
    assert random_row['select']['mean'] == best['default']
    assert search['over'] and search['epochs'][-1]['arch'] == metrics['search darts-2nd 1']['arch']
    assert set(search['epochs'][-1]['probabilities']) == {'recurrent_op_1_0', 'recurrent_op_2_0', 'recurrent_op_2_1'}
