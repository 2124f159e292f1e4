"""Searches read back for a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nni_darts import load_search
from nni_darts.data import load_images
from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from tests.helpers import running
from tests.helpers.stopping import Stop, stop_at
from tests.helpers.tiny import EVOLUTION, SMALL, overrides, text_recipe, write_images, write_text


@pytest.fixture(scope='module')
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return Recipe.load('digits', {**overrides(write_images(tmp_path_factory.mktemp('data') / 'images.npz')), **SMALL, 'search.epochs': 2})


def test_a_search_is_as_it_stood_at_its_end(recipe: Recipe, tmp_path: Path) -> None:
    genotype, result = running.search(recipe, 'darts-1st+pt', 1, tmp_path)
    loaded = load_search(tmp_path)
    assert loaded.genotype == genotype and recipe.space.genotype_of(loaded.strategy.select()) == genotype
    last = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[-1])
    assert loaded.strategy.probabilities() == last['probabilities']
    alpha = loaded.alpha
    assert alpha.loc[last['epoch'], ('normal_op_2_0', 'skip_connect')] == last['probabilities']['normal_op_2_0']['skip_connect']
    assert list(alpha.index) == list(loaded.measurements.index) == [line['epoch'] for line in loaded.epochs]
    assert len(loaded.selection) == len((tmp_path / 'selection.jsonl').read_text().splitlines()) > 0
    data = load_images(recipe.data)
    images = torch.stack([data.train[index][0] for index in range(32)]).float() / 255
    logits = loaded.supernet.eval()(images)
    assert logits.shape == (32, data.num_classes) and logits.isfinite().all()
    assert result['valid_accuracy'] == loaded.measurements['valid_accuracy'].iloc[-1]


def test_an_interrupted_search_gives_the_cell_so_far(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        running.search(recipe, 'darts-1st', 1, tmp_path, on_epoch=stop_at(2))
    loaded = load_search(tmp_path)
    assert loaded.genotype.to_dict() == loaded.epochs[0]['genotype']


def test_a_search_of_text(tmp_path: Path) -> None:
    (tmp_path / 'text').mkdir()
    genotype, _ = running.search(text_recipe(write_text(tmp_path / 'text')), 'darts-1st', 1, tmp_path / 'out')
    assert load_search(tmp_path / 'out').genotype == genotype


def test_folders_without_a_supernet_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='holds no search'):
        load_search(tmp_path)
    running.search(recipe.changed({'search.settings.evolution': EVOLUTION}, source='test'), 'evolution', 1, tmp_path / 'evolution')
    with pytest.raises(InputError, match='its strategy has no supernet'):
        load_search(tmp_path / 'evolution')
    staged = tmp_path / 'staged'
    running.search(recipe, 'darts-1st', 1, staged)
    (staged / 'stage-1').mkdir()
    with pytest.raises(InputError, match='a search in stages'):
        load_search(staged)


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        ('last.ckpt', 'x', 'last.ckpt is damaged: '),
        ('run.json', '[]', 'holds no search'),
        ('run.json', '{"stage": "search"}', r'run.json is damaged \(it holds no recipe or no strategy\)'),
        ('genotype.json', '{}', "genotype.json is damaged: the genotype lacks 'normal'"),
        ('genotype.json', '{"space": "a:B", "sample": {"x": 1}}', 'genotype.json holds one of a:B, and the search has convolutional cells'),
        ('metrics.jsonl', '{', 'metrics.jsonl is damaged: '),
        ('selection.jsonl', '{', 'selection.jsonl or .*metrics.jsonl is damaged: '),
    ],
)
def test_a_damaged_file_is_named(recipe: Recipe, tmp_path: Path, name: str, content: str, said: str) -> None:
    running.search(recipe, 'darts-1st', 1, tmp_path / 'out')
    (tmp_path / 'out' / name).write_text(content)
    with pytest.raises(InputError, match=said):
        load_search(tmp_path / 'out')
