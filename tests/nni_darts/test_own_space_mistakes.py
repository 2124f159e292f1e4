"""Mistakes in a space of the user's, which are found before anything starts, and spaces that only look like one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts.cli import main
from nni_darts.genotypes import genotype_from_dict
from tests.test_documentation import OWN_STRATEGY, blocks

MISTAKES = """
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, Repeat
from torch import nn


class Base(ModelSpace):
    def __init__(self, num_classes=10):
        super().__init__()
        self.head, self.choice = nn.Linear(4, num_classes), self.choose()

    def choose(self):
        return LayerChoice([nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 3, padding=1)], label='layer')

    def forward(self, images):
        return self.head(self.choice(images).mean((2, 3)))


class Second(Base):
    def choose(self):
        return LayerChoice([nn.Conv2d(1, 4, 1), nn.Conv2d(2, 4, 1)], label='layer')


class Inputs(Base):
    def __init__(self):
        super().__init__()
        self.inputs = InputChoice(3, 2, label='inputs')

    def forward(self, images):
        state = self.choice(images)
        return self.head(self.inputs([state, state]).mean((2, 3)))


class Labels(Base):
    def choose(self):
        return nn.Sequential(super().choose(), LayerChoice([nn.Identity(), nn.Tanh(), nn.ReLU()], label='layer'))


class Classes(Base):
    def forward(self, images):
        return super().forward(images).long()


class Must(Base):
    def __init__(self, depth, width=4):
        super().__init__()


class Positional(Base):
    def __init__(self, num_classes, /):
        super().__init__()


class Data(Base):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__(num_classes)
        self.more = LayerChoice([nn.Identity(), nn.Tanh()], label=f'for {in_channels}×{image_size[0]}')

    def forward(self, images):
        return self.head(self.more(self.choice(images).mean((2, 3))))


class Numbers(Base):
    def __init__(self):
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]


class Inplace(Base):
    def choose(self):
        candidates = {'relu': nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 4, 1)), 'conv': nn.Conv2d(1, 4, 1)}
        return nn.Sequential(nn.BatchNorm2d(1), LayerChoice(candidates, label='layer'))


class InplaceLater(Base):
    def choose(self):
        return LayerChoice([nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(inplace=True)), nn.Conv2d(1, 4, 1)], label='layer')


class Missing(Base):
    def choose(self):
        return LayerChoice({'conv': nn.Conv2d(1, 4, 1), 'skip': None}, label='layer')


class Edges(Base):
    edges = {'inputs': ['layer', 'later']}

    def __init__(self):
        super().__init__()
        self.inputs = InputChoice(2, 1, reduction='sum', label='inputs')

    def topology(self):
        return self.edges

    def forward(self, images):
        return self.head(self.inputs([self.choice(images)] * 2).mean((2, 3)))


class Nodes(Edges):
    edges = {'input': ['layer', 'layer']}


class Table(Edges):
    edges = ['layer', 'layer']


class Repeated(Base):
    def choose(self):
        return Repeat(lambda number: nn.Conv2d(1 if number == 0 else 4, 4, 1), (1, 3), label='depth')


class Deep(Base):
    def __init__(self, depth=1, wide=False):
        super().__init__()
        self.more = nn.Sequential(*(LayerChoice([nn.Identity(), nn.Tanh()], label=f'more{number}') for number in range(depth)))
        self.wide = nn.Linear(4, 5) if wide else nn.Identity()

    def forward(self, images):
        return self.head(self.wide(self.more(self.choice(images)).mean((2, 3))))
"""
SHORT = ['search.epochs=2', 'select.epochs=1', 'retrain.epochs=1', 'search.random_samples=2', 'search.batch_size=128']


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which holds the spaces as other.py."""
    (tmp_path / 'other.py').write_text(MISTAKES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    yield tmp_path
    sys.modules.pop('other', None)


def call(*words: str, sets: list[str]) -> Result:
    return CliRunner().invoke(main, [*words, *(word for item in sets for word in ('--set', item))])


def done(*words: str, sets: list[str]) -> str:
    result = call(*words, sets=sets)
    assert result.exit_code == 0, result.output
    return result.output


def test_candidates_of_a_supernet_keep_their_input(folder: Path) -> None:
    result = call('search', '--strategy', 'darts-1st', '--output', 'found', sets=[*SHORT, 'space.name=other:Inplace'])
    assert result.exit_code == 2 and "candidate 'relu' of the choice 'layer' of other:Inplace changes its input in place" in result.output
    done('search', '--strategy', 'random', '--output', 'found', sets=[*SHORT, 'space.name=other:Inplace'])
    done('search', '--strategy', 'darts-1st', '--output', 'later', sets=[*SHORT, 'space.name=other:InplaceLater'])


@pytest.mark.parametrize(
    ('name', 'sets', 'words'),
    [
        ('Second', [], r'space other:Second on images of 1×8×8 and candidate 2 of each choice failed: RuntimeError: .*other.py:\d+'),
        ('Inputs', [], r'space other:Inputs on images of 1×8×8.* failed: IndexError: .*other.py:\d+'),
        ('Labels', [], "two choices with the label 'layer' but different candidates; .* give them the same candidates or another label"),
        ('Classes', [], 'returns numbers of torch.int64; logits must be of a floating-point type'),
        ('Missing', [], r"candidate 'skip' of the choice 'layer' of other:Missing is None; use a module, such as torch.nn.Identity\(\)"),
        (
            'Edges',
            [],
            r"topology\(\) names the LayerChoice 'later' \(did you mean 'layer'\?\), which the space does not have; it has layer",
        ),
        (
            'Nodes',
            [],
            r"topology\(\) names the InputChoice 'input' \(did you mean 'inputs'\?\), which the space does not have; it has inputs",
        ),
        ('Table', [], r"topology\(\) of Table returns \['layer', 'layer'\]; it must return a mapping"),
        ('Must', [], 'space other:Must needs a value for its parameter depth: set space.settings.depth'),
        ('Positional', [], 'must take its parameter num_classes by name, because settings have names'),
        ('Deep', ['space.settings={deph: 3}'], r"no setting 'deph' \(did you mean 'depth'\?\); it has depth, wide"),
        ('Deep', ['space.settings={depth: x}'], r"space other:Deep with depth='x' failed: TypeError: .*other.py:\d+"),
        ('Deep', ['retrain.space={deph: 3}'], r"retrain.space: space other:Deep has no setting 'deph'"),
        ('Deep', ['select.space={deph: 3}'], r"select.space: space other:Deep has no setting 'deph'"),
        ('Deep', ['retrain.space={wide: true}'], r'retrain.space: space other:Deep with wide=True on images .* failed: RuntimeError'),
        ('Deep', ['retrain.space={depth: 2}'], "retrain.space changes the choice 'more1' of other:Deep; .* must stay the same"),
    ],
)
@pytest.mark.parametrize('strategy', ['darts-1st', 'random'])
def test_mistakes_in_a_space_are_found_before_anything_starts(folder: Path, name: str, sets: list[str], words: str, strategy: str) -> None:
    result = call('search', '--strategy', strategy, '--output', 'found', sets=[*SHORT, f'space.name=other:{name}', *sets])
    assert result.exit_code == 2 and re.search(words, result.output), result.output
    assert result.output.strip().count('\n') == 0 and not (folder / 'found').exists()


def test_the_depth_of_a_repeat_is_searched_with_and_without_a_supernet(folder: Path) -> None:
    for strategy in ('darts-1st', 'random'):
        done('search', '--strategy', strategy, '--output', f'found-{strategy}', sets=[*SHORT, 'space.name=other:Repeated'])


def test_a_constructor_may_read_numbers(folder: Path) -> None:
    done('search', '--strategy', 'darts-1st', '--output', 'found', sets=[*SHORT, 'space.name=other:Numbers'])


@pytest.mark.parametrize('strategy', ['random', 'evolution', 'climbing:HillClimbing'])
def test_cells_are_drawn_from_the_space_for_the_data(folder: Path, strategy: str) -> None:
    (folder / 'climbing.py').write_text(blocks(OWN_STRATEGY, 'python')[1])
    evolution = [f'search.settings.evolution.{key}={value}' for key, value in {'cells': 3, 'population': 2, 'sample': 1}.items()]
    sets = [*SHORT, *evolution, 'search.settings.climbing:HillClimbing.cells=2', 'space.name=other:Data']
    done('search', '--strategy', strategy, '--output', 'found', sets=sets)
    found = genotype_from_dict(json.loads((folder / 'found' / 'genotype.json').read_text()))
    assert set(found.sample) == {'layer', 'for 1×8'}
    sys.modules.pop('climbing')
