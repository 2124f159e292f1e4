"""A real NNI experiment in a space of NNI's hub, from search to a network that is trained below a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_darts.genotypes import genotype_from_code
from tests.helpers.hub import HUB, write_pictures
from tests.helpers.live import ENVIRONMENT, launched

pytestmark = [pytest.mark.nni, pytest.mark.slow]

STRATEGIES = ['darts-1st', 'random']
LIMITS = {'parameters': 3000, 'multiply_adds': 250_000}


def test_mobilenets_below_a_limit(tmp_path: Path) -> None:
    given = {key: value for key, value in HUB['MobileNetV3Space'].items() if key != 'num_labels'}
    settings = {
        'space': {'name': 'nni.nas.hub.pytorch:MobileNetV3Space', 'settings': given},
        'data': {'name': 'npz', 'path': str(write_pictures(tmp_path / 'images.npz')), 'augment': 'none'},
        **{'search.epochs': 2, 'search.batch_size': 10, 'search.random_samples': 2, 'select.epochs': 1, 'retrain.epochs': 1},
        **{'limits': LIMITS, 'search.penalty.parameters': {'target': 2000, 'weight': 0.1}},
    }
    space = {'strategy': {'_type': 'choice', '_value': STRATEGIES}, 'seed': {'_type': 'choice', '_value': [1]}}
    arguments = {'recipe': 'digits', 'set': settings}
    with launched(tmp_path, ENVIRONMENT, searchSpace=space, classArgs=arguments) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 420)
        metrics = {trial.key: trial.metric for trial in experiment.trials() if trial.metric is not None}
    assert {f'retrain {name} 1' for name in STRATEGIES} <= set(metrics)
    for metric in metrics.values():
        if 'parameters' in metric:
            assert all(metric[measure] <= limit for measure, limit in LIMITS.items())
    for name in STRATEGIES:
        assert 'parameters' in metrics[f'retrain {name} 1'] and genotype_from_code(metrics[f'retrain {name} 1']['arch'])
