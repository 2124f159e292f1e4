"""Every strategy in one real experiment, as someone gets it who edits that word of the quickstart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from nni_darts.strategies.methods import METHODS, SELECTIONS
from nni_darts.strategies.registry import find
from tests.helpers.live import launched
from tests.helpers.tiny import EVOLUTION, SMALL, overrides, write_images

pytestmark = [pytest.mark.nni, pytest.mark.slow]

NAMES = [*METHODS, *(f'darts-1st+{suffix}' for suffix in SELECTIONS), 'pc-darts+pt', 'drnas+pt', 'fairdarts+pt']


@pytest.mark.parametrize('space', ['darts', 'nasbench201'])
def test_every_strategy_ends_with_a_retrained_cell(space: str, tmp_path: Path) -> None:
    small = {'search.epochs': 1, 'space.nodes': 2, 'space.channels': 4, 'retrain.epochs': 1, 'search.random_samples': 1, **SMALL}
    if space == 'nasbench201':
        small |= {'space.name': space, 'space.nodes': 4, 'space.cells': 3}
    settings = {**overrides(write_images(tmp_path / 'images.npz')), **small}
    names = [name for name in NAMES if space == 'darts' or name != 'p-darts']  # that one needs cells that can be stacked deeper
    strategies = {'strategy': {'_type': 'choice', '_value': names}}
    with launched(tmp_path, searchSpace=strategies, classArgs={'recipe': 'digits', 'set': settings}) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 3600)
        trials = experiment.trials()
        intermediate = {
            trial.key: [value for value in experiment.manager.reported(trial.id)[0]]
            for trial in trials
            if trial.metric is not None and trial.key.startswith('search ')
        }
    results = Counter(trial.key for trial in trials if trial.metric is not None)
    supernets = [name for name in names if not find(name).one_by_one]
    expected = {f'{stage} {name} 1' for name in supernets for stage in ('search', 'select')} | {f'retrain {name} 1' for name in names}
    expected |= {'select random 1.1', 'search proxy 1', 'select proxy 1.1'} | {
        f'select evolution 1.{cell}' for cell in range(1, EVOLUTION['cells'] + 1)
    }
    assert set(results) == expected and set(results.values()) == {1}
    for key, epochs in intermediate.items():
        if '+' in key or any(f' {name} ' in key for name in ('sgas', 'enas', 'random-ws')):
            assert epochs[-1]['decisions'] == epochs[-1]['of_decisions'] > 0
