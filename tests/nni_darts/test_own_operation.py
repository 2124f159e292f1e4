"""An operation of the user's in the DARTS cell, by name, and what goes wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nni_darts.cli import main
from nni_darts.genotypes import genotype_from_code, genotype_from_dict

OPERATION = """
import torch
from torch import nn

class Ghost(nn.Sequential):
    def __init__(self, channels, stride, affine=True):
        super().__init__(nn.ReLU(), nn.Conv2d(channels, channels, 3, stride, 1, groups=channels), nn.BatchNorm2d(channels, affine=affine))

def wrong(channels, stride):
    return 3

def broken(channels, stride):
    return {}[channels]

module = nn.Conv2d(4, 4, 3)

def one(channels):
    return nn.Identity()

def three(channels, stride, kernel):
    return nn.Identity()

def unstrided(channels, stride):
    return nn.Conv2d(channels, channels, 3, padding=1)

def unpadded(channels, stride):
    return nn.Conv2d(channels, channels, 3, stride)

def halving(channels, stride):
    return nn.Conv2d(channels, channels // 2, 1, stride)

def grouped(channels, stride):
    return nn.Conv2d(channels, channels, 1, stride, groups=3)

def several(channels, stride):
    return nn.MaxPool2d(1, stride, return_indices=True)

def inplace(channels, stride):
    return nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1, stride))

class Whole(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.stride = stride

    def forward(self, images):
        return images[:, :, :: self.stride, :: self.stride].long()

class Wrong(Whole):
    def forward(self, images):
        return images.shapes

class Scaled(Whole):
    def __init__(self, channels, stride):
        super().__init__(channels, stride)
        self.scale = torch.linspace(0, 1, 3)[1].item()

    def forward(self, images):
        return images[:, :, :: self.stride, :: self.stride] * self.scale
"""
SHORT = ['search.epochs=2', 'retrain.epochs=1', 'select.epochs=1', 'search.random_samples=2', 'search.batch_size=128']
CELLS = ['space.nodes=2', 'space.cells=3', 'space.channels=4', 'retrain.cells=3', 'retrain.channels=4']


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which holds the operations as myops.py."""
    (tmp_path / 'myops.py').write_text(OPERATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    yield tmp_path
    sys.modules.pop('myops', None)


def call(*words: str, sets: list[str]) -> Result:
    return CliRunner().invoke(main, [*words, *(word for item in sets for word in ('--set', item))])


def done(*words: str, sets: list[str]) -> None:
    result = call(*words, sets=sets)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('Spook', "module 'myops' has no 'Spook'"),
        ('wrong', 'returned an object of type int; it must return a torch.nn.Module'),
        ('broken', r'operation myops:broken failed: KeyError: 4 .*myops.py:\d+'),
        ('module', r'operation myops:module is an object of Conv2d; it must be a class or function of \(channels, stride\)'),
        ('one', r'operation myops:one is called with the channels and the stride, and takes \(channels\): .*myops.py\)'),
        ('three', r"takes \(channels, stride, kernel\): missing a required argument: 'kernel' \(.*myops.py\)"),
        ('unstrided', r'channels and stride 2 returns \(2, 4, 8, 8\) for images \(2, 4, 8, 8\); it must return \(2, 4, 4, 4\)'),
        ('unpadded', r'stride 1 returns \(2, 4, 6, 6\) for images \(2, 4, 8, 8\); it must return \(2, 4, 8, 8\)'),
        ('halving', r'stride 1 returns \(2, 2, 8, 8\)'),
        ('grouped', 'operation myops:grouped failed: ValueError: in_channels must be divisible by groups'),
        ('several', 'stride 1 returns tuple for images'),
        ('inplace', 'with 4 channels and stride 1 changes its input in place, which other operations read, too; use inplace=False'),
        ('Whole', 'stride 1 returns numbers of torch.int64; they must be of a floating-point type'),
        ('Wrong', r'stride 1 on images of 8×8 failed: AttributeError: .*shapes.*myops.py:\d+'),
    ],
)
@pytest.mark.parametrize('strategy', ['darts-1st', 'random'])
def test_mistakes_in_an_operation_are_found_before_anything_starts(folder: Path, name: str, words: str, strategy: str) -> None:
    sets = [*SHORT, *CELLS, f'space.operations=[none, skip_connect, "myops:{name}"]']
    result = call('search', '--strategy', strategy, '--output', 'found', sets=sets)
    assert result.exit_code == 2 and re.search(words, result.output), result.output
    assert result.output.strip().count('\n') == 0 and not (folder / 'found').exists()


@pytest.mark.parametrize('strategy', ['darts-1st', 'random'])
def test_an_own_operation_is_searched_and_retrained(folder: Path, strategy: str) -> None:
    sets = [*SHORT, *CELLS, 'space.operations=[none, skip_connect, "myops:Ghost", "myops:Scaled"]']
    done('search', '--strategy', strategy, '--output', 'found', sets=sets)
    text = (folder / 'found' / 'genotype.json').read_text()
    found = genotype_from_dict(json.loads(text))
    assert 'myops:' in text and genotype_from_code(found.code()) == found
    done('retrain', '--genotype', 'found', '--output', 'trained', sets=['retrain.epochs=1'])
    assert json.loads((folder / 'trained' / 'genotype.json').read_text()) == json.loads(text)


def test_a_missing_module_is_named() -> None:
    result = call('search', '--output', 'found', sets=[*SHORT, *CELLS, 'space.operations=[none, "nowhere:Ghost"]'])
    assert result.exit_code == 2 and "no module 'nowhere' for operation" in result.output
