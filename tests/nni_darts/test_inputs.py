"""Whatever a file holds: a clear error or a valid object, never another exception, a hang, or code that runs.

A few examples in CI; ``make test-faults`` runs thousands and prints how many.
"""

from __future__ import annotations

import copy
import io
import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from nni_darts import PUBLISHED, NasBench201Genotype
from nni_darts.data import load_images
from nni_darts.errors import InputError
from nni_darts.experiment.tuner import SearchAndRetrain
from nni_darts.experiment.validate import check_experiment
from nni_darts.genotypes import genotype_from_code, genotype_from_text
from nni_darts.recipes import Recipe, load_yaml, recipe_names
from nni_darts.strategies.registry import create_strategy, find
from nni_darts.training.checkpoints import read_checkpoint
from tests.nni_darts.experiment.test_every_strategy import NAMES

ROOT = Path(__file__).parents[2]
PROOF = Path(tempfile.gettempdir()) / f'nni-darts-code-ran-{os.getpid()}'
CODE = f"__import__('pathlib').Path({str(PROOF)!r}).touch()"
"""What hostile input would like to run."""

NASTY = (
    '', '0', '-1', '1e999', 'nan', '.inf', 'null', '~', '[]', '{}', '[[', '{{', ')', '(', '"', "'", '\\', '\0', '\ud800', '\u2028', '#',
    '//', '!!python/object/apply:os.system [ls]', '&a [*a, *a]', 'range(9)', 'range(10**12)', '9' * 30, '-' * 40, CODE, f'range({CODE})',
    f'!!python/object/apply:builtins.eval ["{CODE}"]', 'none', 'skip_connect', 'module:function', '[' * 300, '٣', 'é', '\t', '\r\n',
)  # fmt: skip
VALUES: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(NASTY) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(NASTY), inner, max_size=3),
    max_leaves=5,
)
SEEN: Counter[str] = Counter()


@pytest.fixture(scope='module', autouse=True)
def counts(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert not PROOF.exists()
    if settings.default is not None and settings.default.max_examples > 100:
        with request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled():
            total = sum(SEEN.values())
            print(f'\n{total:,} inputs: ' + ', '.join(f'{count:,} {what}' for what, count in sorted(SEEN.items())))


@st.composite
def spoilt_text(draw: DrawFn, originals: tuple[str, ...]) -> str:
    """A text in which some places are cut out, doubled, or replaced."""
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        what = draw(st.sampled_from(NASTY) | st.text(max_size=3) | st.just(text[start:end] * 2))
        text = text[:start] + what + text[end:]
    return text


@st.composite
def spoilt_bytes(draw: DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """Bytes cut off, or with some of them changed."""
    data = bytearray(draw(st.sampled_from(originals)))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    for _ in range(draw(st.integers(1, 6))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@st.composite
def spoilt_tree(draw: DrawFn, originals: tuple[Any, ...]) -> Any:
    """Plain data in which some leaves or branches are others, gone, or new."""
    tree = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = None, None
        place = tree
        while isinstance(place, (dict, list)) and place and (holder is None or draw(st.integers(0, 3))):
            holder, key = place, draw(st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place))))
            place = place[key]
        if holder is None:
            break
        action = draw(st.sampled_from(('change', 'remove', 'add')))
        if action == 'change':
            holder[key] = draw(VALUES)
        elif action == 'remove':
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8) | st.sampled_from(NASTY))] = draw(VALUES)
        else:
            holder.append(draw(VALUES))
    return tree


def one_sentence(kind: str, read: Callable[[], Any], errors: type[Exception] = InputError) -> Any:
    """What is read, or None where that is refused with a sentence."""
    try:
        found = read()
    except errors as error:
        assert str(error).strip(), 'an error without a word'
        assert 'Traceback' not in str(error)
        SEEN[f'{kind} refused'] += 1
        return None
    SEEN[f'{kind} read'] += 1
    return found


CELLS = (PUBLISHED['DARTS_V2'], PUBLISHED['NASNet-A'], PUBLISHED['DARTS_V2-RNN'], NasBench201Genotype.from_code('nb201.333133'))
TEXTS = tuple(form for cell in CELLS for form in (cell.to_text(), cell.to_json()))
CODES = (PUBLISHED['DARTS_V2'].code(), PUBLISHED['DARTS_V2-RNN'].code(), 'nb201.333133')


@given(spoilt_text(TEXTS))
def test_genotypes_in_files(text: str) -> None:
    cell = one_sentence('genotype texts', lambda: genotype_from_text(text), ValueError)
    if cell is not None:
        assert genotype_from_text(cell.to_json()) == cell == genotype_from_text(cell.to_text())


@given(spoilt_tree(tuple(json.loads(cell.to_json()) for cell in CELLS)))
def test_genotypes_as_data(tree: Any) -> None:
    cell = one_sentence('genotype trees', lambda: genotype_from_text(json.dumps(tree)), ValueError)
    if cell is not None:
        assert genotype_from_text(cell.to_json()) == cell


@given(spoilt_text(CODES))
def test_codes(code: str) -> None:
    cell = one_sentence('codes', lambda: genotype_from_code(code), ValueError)
    if cell is not None:
        assert genotype_from_code(cell.code()) == cell


RECIPES = tuple((ROOT / 'nni_darts' / 'recipes' / f'{name}.yml').read_text() for name in recipe_names())


@given(spoilt_tree(tuple(load_yaml(text, 'recipe') for text in RECIPES)))
def test_recipes_as_data(tree: Any) -> None:
    recipe = one_sentence('recipe trees', lambda: Recipe.from_dict(tree))
    if recipe is not None:
        again = Recipe.from_dict(recipe.to_dict())
        assert again == recipe or again.to_dict() == recipe.to_dict()


@given(spoilt_text(RECIPES))
def test_recipes_as_text(text: str) -> None:
    one_sentence('recipe texts', lambda: Recipe.from_dict(load_yaml(text, 'a recipe')))


@given(st.lists(st.text(max_size=20) | spoilt_text(('search.epochs=5', 'data.name=digits', 'space={nodes: 2}')), max_size=2))
def test_overrides(overrides: list[str]) -> None:
    one_sentence('overrides', lambda: Recipe.load('digits', overrides))


EXAMPLES = tuple((ROOT / 'examples' / name).read_text() for name in ('quickstart.yml', 'compare.yml', 'recurrent.yml', 'remote.yml'))


@given(spoilt_tree(tuple(load_yaml(text, 'example').get('tuner')['classArgs'] | {'max_retries': 1} for text in EXAMPLES)))
def test_arguments_of_the_tuner(tree: Any) -> None:
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        try:
            error = SearchAndRetrain(**tree).error
        except TypeError as wrong:
            assert 'unexpected keyword' in str(wrong)  # "check" finds these, and NNI says so
            return
        SEEN[f'tuner arguments {"refused" if error else "read"}'] += 1
        assert error is None or 'Traceback' not in error, error


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=max(5, settings.default.max_examples // len(NAMES)) if settings.default else 5)
@given(data=st.data())
def test_settings_of_strategies(name: str, data: st.DataObject) -> None:
    known = st.sampled_from([setting.name for setting in find(name).settings()] or ['samples'])
    tree = data.draw(st.dictionaries(known | st.sampled_from(['self', 'name', '']), VALUES, min_size=1, max_size=2))
    one_sentence('strategy settings', lambda: create_strategy(name, **tree), ValueError)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('inputs')


@settings(max_examples=max(5, settings.default.max_examples // 5) if settings.default else 5)
@given(tree=spoilt_tree(tuple(load_yaml(text, 'example') for text in EXAMPLES)) | spoilt_text(EXAMPLES))
def test_experiments(folder: Path, tree: Any) -> None:
    path = folder / 'experiment.yml'
    text = tree if isinstance(tree, str) else yaml.safe_dump(tree, allow_unicode=True)
    path.write_bytes(text.encode('utf-8', 'surrogatepass'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        findings = one_sentence('experiments', lambda: check_experiment(path))
    if findings is not None:
        assert all(isinstance(error, str) and error and 'Traceback' not in error for error in findings.errors)


def npz() -> bytes:
    file = io.BytesIO()
    images = np.zeros((12, 3, 3), np.uint8)
    labels = np.arange(12) % 3
    np.savez(file, train_images=images, test_images=images, train_labels=labels, test_labels=labels)
    return file.getvalue()


@given(data=spoilt_bytes((npz(),)))
def test_images_in_an_npz(folder: Path, data: bytes) -> None:
    path = folder / 'images.npz'
    path.write_bytes(data)
    recipe = Recipe.load('digits', {'data': {'name': 'npz', 'path': str(path)}})
    one_sentence('npz files', lambda: load_images(recipe.data))


class Hostile:
    def __reduce__(self) -> tuple:
        return PROOF.touch, ()


def checkpoint(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@given(data=spoilt_bytes((checkpoint({'loops': {'a': [1, 2.5]}, 'weights': torch.arange(12.0)}), checkpoint({'x': Hostile()}))))
def test_checkpoints(folder: Path, data: bytes) -> None:
    path = folder / 'last.ckpt'
    path.write_bytes(data)
    one_sentence('checkpoints', lambda: read_checkpoint(path), ValueError)


def test_a_checkpoint_cannot_run_code(folder: Path) -> None:
    path = folder / 'hostile.ckpt'
    path.write_bytes(checkpoint({'loops': {}, 'x': Hostile()}))
    with pytest.raises(ValueError, match='Weights only load failed|Unsupported'):
        read_checkpoint(path)
