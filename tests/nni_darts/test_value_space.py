"""A user's space with choices among values, under every strategy, from search to retrained network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nni_darts.cli import main
from nni_darts.strategies.registry import names
from tests.helpers.tiny import write_images

SPACE = """
import nni
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableDropout, MutableLinear
from torch import nn


class Widths(ModelSpace):
    def __init__(self, num_classes=10, in_channels=1):
        super().__init__()
        width, size = nni.choice('width', [2, 4]), nni.choice('size', [1, 3])
        self.layers = nn.Sequential(
            MutableConv2d(in_channels, width, size, padding=size // 2, bias=False),
            MutableBatchNorm2d(width),
            nn.ReLU(),
            MutableConv2d(width, 2 * width, 3, stride=2, padding=1, groups=width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            MutableDropout(nni.choice('dropout', [0.0, 0.3])),
            MutableLinear(2 * width, num_classes),
        )

    def forward(self, images):
        return self.layers(images)
"""
SETTINGS = {
    'space.name': 'widths:Widths',
    'data.name': 'npz',
    'data.augment': 'none',
    'search.epochs': 2,
    'search.batch_size': 16,
    'search.random_samples': 2,
    'search.settings': '{evolution: {cells: 4, population: 2, sample: 2}, enas: {samples: 4, finalists: 2}, '
    'random-ws: {samples: 4, finalists: 2}}',
    'select.epochs': 1,
    'retrain.epochs': 1,
}
REFUSED = ('p-darts', 'darts-minus', 'lambda-darts', 'oles', 'darts-plus')
METHODS = [name for name in names() if name.partition('+')[0] not in REFUSED]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which holds the space as widths.py."""
    (tmp_path / 'widths.py').write_text(SPACE)
    write_images(tmp_path / 'images.npz')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    yield tmp_path
    sys.modules.pop('widths', None)


def call(*words: str, **settings: object) -> str:
    sets = [word for key, value in {**SETTINGS, 'data.path': 'images.npz', **settings}.items() for word in ('--set', f'{key}={value}')]
    result = CliRunner().invoke(main, [*words, *sets])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize('strategy', [*METHODS, 'darts-1st+pt', 'fixed-alpha+pt-mag'])
def test_every_strategy_searches_values(strategy: str, folder: Path) -> None:
    call('search', '--recipe', 'digits', '--strategy', strategy, '--output', 'found')
    sample = json.loads((folder / 'found' / 'genotype.json').read_text())['sample']
    assert sample['width'] in (2, 4) and sample['size'] in (1, 3) and sample['dropout'] in (0.0, 0.3)
    if strategy == METHODS[0]:
        call('retrain', '--recipe', 'digits', '--genotype', 'found', '--output', 'trained')
        assert 0 <= json.loads((folder / 'trained' / 'result.json').read_text())['result']['test_accuracy'] <= 1


@pytest.mark.parametrize('strategy', REFUSED)
def test_a_strategy_says_in_a_sentence_that_it_cannot(strategy: str, folder: Path) -> None:
    words = [word for key, value in {**SETTINGS, 'data.path': 'images.npz'}.items() for word in ('--set', f'{key}={value}')]
    result = CliRunner().invoke(main, ['search', '--recipe', 'digits', '--strategy', strategy, '--output', 'found', *words])
    assert result.exit_code != 0 and strategy in result.output and 'Traceback' not in result.output
