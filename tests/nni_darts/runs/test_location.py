"""A model is found by any of its names, or one sentence says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.location import ModelFile, find_model


def run_json(folder: Path, stage: str, recipe: str = 'digits') -> Path:
    folder.mkdir(exist_ok=True)
    (folder / 'run.json').write_text(json.dumps({'stage': stage, 'recipe': Recipe.load(recipe).to_dict()}))
    return folder


def test_every_name_of_a_model(tmp_path: Path) -> None:
    folder = run_json(tmp_path / 'out', 'retrain')
    weights = folder / 'weights.pt'
    weights.touch()
    assert find_model(folder) == find_model(weights) == ModelFile('weights', weights)
    (tmp_path / 'whole' / 'retrain').mkdir(parents=True)
    inner = tmp_path / 'whole' / 'retrain' / 'weights.pt'
    inner.touch()
    assert find_model(tmp_path / 'whole') == ModelFile('weights', inner)
    for kind in ('onnx', 'pt2'):
        (tmp_path / f'net.{kind}').touch()
        assert find_model(tmp_path / f'net.{kind}') == ModelFile(kind, tmp_path / f'net.{kind}')


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / 'photo.jpg').touch()
    language = run_json(tmp_path / 'text', 'retrain', 'pydoc')
    (language / 'weights.pt').touch()
    (tmp_path / 'empty').mkdir()
    cases = {
        tmp_path / 'nowhere': 'there is no file or folder .*nowhere; a model is the output folder of nni-darts fit or retrain',
        tmp_path / 'photo.jpg': r'photo\.jpg is not a model',
        tmp_path / 'empty': r'empty has no weights\.pt',
        run_json(tmp_path / 'search', 'search'): r'holds a search, .*; nni-darts retrain --genotype .*search --output FOLDER',
        run_json(tmp_path / 'half', 'retrain'): 'the training in .*half is not finished; .* --resume',
        language: 'text holds a language model, which cannot classify images',
        language / 'weights.pt': 'text holds a language model, which cannot classify images',
    }
    for path, sentence in cases.items():
        with pytest.raises(InputError, match=sentence) as error:
            find_model(path)
        assert '\n' not in str(error.value)
