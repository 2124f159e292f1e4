"""Searches of a real experiment that share their supernets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_darts.recipes import Recipe
from nni_darts.recipes.loading import override_pairs
from tests.helpers import running
from tests.helpers.live import ENVIRONMENT, launched
from tests.helpers.tiny import overrides, write_images


@pytest.mark.slow
@pytest.mark.nni
def test_a_search_with_a_selection_continues_from_the_supernet_of_another_trial(tmp_path: Path) -> None:
    settings = overrides(write_images(tmp_path / 'images.npz')) | {'search.tuning_epochs': 1}
    space = {'strategy': {'_type': 'choice', '_value': ['darts-1st+pt', 'darts-1st']}}
    arguments = {'recipe': 'digits', 'set': settings, 'share_search': True}
    with launched(tmp_path, ENVIRONMENT, searchSpace=space, trialConcurrency=2, classArgs=arguments) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 600)
        trials = {trial.key: trial for trial in experiment.trials() if trial.metric is not None}
        folders = experiment.folder / 'environments' / 'local-env' / 'trials'
        run = json.loads((folders / trials['search darts-1st+pt 1'].id / 'run.json').read_text())
    assert set(trials) == {f'{stage} {name} 1' for stage in ('search', 'select', 'retrain') for name in space['strategy']['_value']}
    assert Path(run['supernet']).samefile(folders / trials['search darts-1st 1'].id)
    assert trials['search darts-1st+pt 1'].started >= trials['search darts-1st 1'].ended
    recipe = Recipe.load('digits', dict(override_pairs(settings)))
    whole, _ = running.search(recipe, 'darts-1st+pt', 1, tmp_path / 'whole')
    assert trials['search darts-1st+pt 1'].metric['arch'] == whole.code()
