"""Each variant of DARTS in whole runs: on images, resumed, and with another selection."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.recipes import Recipe
from nni_darts.strategies.variants import VARIANTS
from tests.helpers import running
from tests.helpers.stopping import broken_and_resumed, measured
from tests.helpers.tiny import overrides, write_images

NAMES = [method.name for method, _ in VARIANTS]
RELAXED = [method.name for method, _ in VARIANTS if method.relaxed]


def slow_but(*quick: str, of: list[str]) -> list[Any]:
    """Returns all names, with those that are not quick marked as slow; ``tests/faults`` kills and resumes them all."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in of]


def recipe(tmp_path: Path, **changes: object) -> Recipe:
    small = {'space.channels': 4, 'space.nodes': 2, 'search.epochs': 3}
    return Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **small, **changes})


@pytest.mark.parametrize('name', slow_but('gaea-darts', 'lambda-darts', 'fairdarts', of=NAMES))
def test_a_resumed_search_is_the_unbroken_one(name: str, tmp_path: Path) -> None:
    (genotype, expected), (again, result) = broken_and_resumed(recipe(tmp_path), name, tmp_path)
    assert again == genotype and measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    assert result['passes'] == expected['passes']
    one, other = (torch.load(tmp_path / part / 'last.ckpt', weights_only=True)['state_dict'] for part in ('unbroken', 'broken'))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))


@pytest.mark.parametrize('name', slow_but('drnas', 'oles', of=RELAXED))
def test_perturbation_selects_from_its_supernet(name: str, tmp_path: Path) -> None:
    settings = {'search.epochs': 2, 'search.tuning_epochs': 1, 'space.nodes': 1}
    running.search(recipe(tmp_path, **settings), f'{name}+pt', 1, tmp_path / 'out')
    assert measured(tmp_path / 'out')[-1]['decisions'] == 4


@pytest.mark.parametrize('limits', [{}, {'limits.multiply_adds': 120_000}], ids=['free', 'limited'])
def test_a_cell_with_fewer_edges_is_retrained_costs_less_and_is_shown(limits: dict[str, object], tmp_path: Path) -> None:
    def made(threshold: float) -> Recipe:
        return recipe(tmp_path, **{'search.settings.fairdarts': {'threshold': threshold, 'learning_rate': 0.05}, **limits})

    whole, _ = running.search(made(0.0), 'fairdarts', 1, tmp_path / 'whole')
    tables = measured(tmp_path / 'whole')[-1]['probabilities']
    middle = statistics.median(tables[label][name] for edges in whole.edges().values() for label, name in edges)
    genotype, result = running.search(made(middle), 'fairdarts', 1, tmp_path / 'found')
    assert 0 < genotype.count('none') + genotype.count('none', 'reduce') < 8
    assert result['seconds'] > 0 and (tmp_path / 'found' / 'search.html').stat().st_size > 10_000
    trained = running.train_cell(made(middle), 'retrain', genotype, 1, tmp_path / 'trained')
    assert 0 <= trained['test_accuracy'] <= 1
