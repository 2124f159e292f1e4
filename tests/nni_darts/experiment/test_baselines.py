"""``examples/baselines.yml`` in NNI, on few images: eight strategies with one budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nni_darts.experiment.protocol import parse_search_space
from nni_darts.recipes import Recipe
from nni_darts.runs.budget import training_passes
from tests.helpers.live import ROOT, launched
from tests.helpers.tiny import write_images

pytestmark = [pytest.mark.nni, pytest.mark.slow]


def test_every_strategy_spends_the_same(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / 'examples' / 'baselines.yml').read_text())
    config['searchSpace']['seed']['_value'] = [1]
    names, _ = parse_search_space(config['searchSpace'])
    assert set(names) == {'darts-1st', 'darts-2nd', 'darts-pt', 'pc-darts', 'enas', 'random-ws', 'random', 'evolution'}
    arguments = config['tuner']['classArgs']
    settings = arguments['set'] | {'data.name': 'npz', 'data.path': str(write_images(tmp_path / 'images.npz')), 'data.augment': 'none'}
    settings |= {'search.batch_size': 8}  # a larger one would be a large part of so few images, and to score on it the whole budget
    recipe = Recipe.load(arguments['recipe'], settings)
    with launched(tmp_path, searchSpace=config['searchSpace'], classArgs=arguments | {'set': settings}) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 3600)
        trials = [trial for trial in experiment.trials() if trial.metric is not None]
    for name in names:
        mine = [trial for trial in trials if trial.parameters['strategy'] == name]
        assert [trial.key for trial in mine if trial.parameters['stage'] == 'retrain'] == [f'retrain {name} 1']
        spent = sum(trial.metric['passes'] for trial in mine if trial.parameters['stage'] != 'retrain')
        # Nobody has more, and nobody as much less as another epoch of second order or another cell would take.
        assert recipe.budget.passes - max(2.5, training_passes(recipe, 'select')) < spent <= recipe.budget.passes + 1e-6
