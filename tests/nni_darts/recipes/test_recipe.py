from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe, recipe_names


@pytest.mark.parametrize('name', recipe_names())
def test_recipes_load_and_survive_a_round_trip(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_published_hyper_parameters() -> None:
    cifar, imagenet = Recipe.load('cifar10'), Recipe.load('imagenet').retrain
    assert (cifar.space.channels, cifar.space.cells, cifar.space.nodes) == (16, 8, 4)
    search = cifar.search
    assert (search.epochs, search.batch_size, search.learning_rate, search.min_learning_rate) == (50, 64, 0.025, 0.001)
    assert (search.momentum, search.weight_decay, search.gradient_clip, search.train_portion) == (0.9, 3e-4, 5.0, 0.5)
    assert (search.architecture_learning_rate, search.architecture_weight_decay) == (3e-4, 1e-3)
    train = cifar.retrain
    assert (train.channels, train.cells, train.epochs, train.batch_size, train.learning_rate) == (36, 20, 600, 96, 0.025)
    assert (train.cutout, train.drop_path, train.auxiliary_weight, train.gradient_clip) == (16, 0.2, 0.4, 5.0)
    assert (imagenet.channels, imagenet.cells, imagenet.epochs, imagenet.batch_size) == (48, 14, 250, 128)
    assert (imagenet.learning_rate, imagenet.decay, imagenet.weight_decay, imagenet.label_smoothing) == (0.1, 0.97, 3e-5, 0.1)


@pytest.mark.parametrize(('name', 'channels', 'cells', 'batch', 'reductions'), [('wide', 18, 4, 96, (1, 2)), ('deep', 7, 18, 64, (6, 12))])
def test_the_spaces_of_the_darts_bench_suite(name: str, channels: int, cells: int, batch: int, reductions: tuple[int, int]) -> None:
    import torch

    recipe = Recipe.load(f'darts-{name}')
    search, train = recipe.search, recipe.retrain
    assert (recipe.space.channels, recipe.space.cells, train.channels, train.cells) == (channels, cells, channels, cells)
    assert (search.epochs, search.batch_size, search.learning_rate, search.architecture_learning_rate) == (100, batch, 0.025, 3e-4)
    assert search.portion * search.train_portion == 0.25  # a quarter of the images for the weights, and another for α
    assert (train.epochs, train.batch_size, train.learning_rate, train.momentum, train.weight_decay) == (300, 512, 0.025, 0.9, 3e-4)
    with torch.device('meta'):
        assert recipe.space.supernet(num_classes=10, in_channels=3, image_size=(32, 32)).reductions == reductions
    without = Recipe.load(f'darts-{name}', {'space.operations': [name for name in recipe.space.operations if name != 'skip_connect']})
    assert 'skip_connect' not in without.space.operations and len(without.space.operations) == 7


@pytest.mark.parametrize(('key', 'value'), [('space.cells', 1), ('space.nodes', 8)])
def test_the_space_of_a_single_cell_is_refused(key: str, value: int) -> None:
    with pytest.raises(InputError, match=key):
        Recipe.load('darts-wide', {key: value})


def test_select_starts_from_retrain() -> None:
    recipe = Recipe.load('digits', ['retrain.channels=6', 'select.epochs=1'])
    assert recipe.select.channels == 6
    assert recipe.select.epochs == 1 != recipe.retrain.epochs


def test_overrides_as_text_and_as_mapping() -> None:
    text = Recipe.load('digits', ['search.learning_rate=3e-2', 'space.operations=[none, skip_connect]'])
    assert text == Recipe.load('digits', {'search.learning_rate': 0.03, 'space.operations': ['none', 'skip_connect']})
    assert text.search.learning_rate == 0.03


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match='frozen'):
        Recipe.load('digits').search.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ('override', 'names'),
    [
        ('search.epoch=5', "'search.epoch' (did you mean 'epochs'?)"),
        ('search.epochs=many', "search.epochs = 'many'"),
        ('search.epochs=0', 'search.epochs = 0'),
        ('search.epochs=2.5', 'search.epochs = 2.5'),
        ('search.epochs=true', 'search.epochs = True'),
        ('search.learning_rate=.nan', 'search.learning_rate'),
        ('search.train_portion=1', 'search.train_portion = 1'),
        ('retrain.schedule=linear', "retrain.schedule = 'linear'"),
        ('data.name=mnist', "unknown data set 'mnist'; known: digits"),
        ('data.name=npz', 'data.path'),
        ('data=3', 'data = 3'),
        ('space.cells=2', 'space.cells = 2'),
        ('space.operations=[none]', "'none'"),
        ('space.operations=[conv]', "unknown operation 'conv'"),
        ('select.validation_portion=0', 'select.validation_portion'),
        ('nothing=1', "unknown key 'nothing'; allowed: name, data, space, search"),
        ('search.epochs.more=1', "'epochs' is not a section"),
        ('search.epochs', 'section.key=value'),
        ('search.epochs=[', 'not valid YAML'),
        ('search.settings={darts-2nd: 3}', 'search.settings'),
        ('search.warmup_epochs=8', 'none of the 8 epochs'),
        ('search.min_learning_rate=5', 'above learning_rate'),
        ('data.image_size=32', 'digits has images of one size'),
        ('retrain.channels=100000000', 'retrain.channels'),
    ],
)
def test_mistakes_are_one_sentence_that_names_them(override: str, names: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe.load('digits', [override])
    assert names in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['- 1', 'data: [', '3', '', '!!python/object/apply:os.system ["true"]', 'data: {name: digits}'])
def test_broken_files(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'recipe.yml'
    path.write_text(text)
    with pytest.raises(InputError, match='recipe'):
        Recipe.load(path)


@pytest.mark.parametrize('name', ['cifar11', 'missing.yml', '/'])
def test_unknown_recipes(name: str) -> None:
    with pytest.raises(InputError, match='recipe'):
        Recipe.load(name)


def test_random_cells_depend_on_the_seed_alone() -> None:
    recipe = Recipe.load('digits', ['search.random_samples=5'])
    assert recipe.random_cells(1) == recipe.random_cells(1)
    assert len(set(recipe.random_cells(1)) | set(recipe.random_cells(2))) == 10


def test_text_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(InputError, match='cannot be written as UTF-8, because of character 1'):
        Recipe.load('pydoc', {'search.settings': {'darts-pt': {'criterion': {'\ud800': None}}}})


def test_a_folder_has_its_own_recipe(tmp_path: Path) -> None:
    recipe = Recipe.load('photos-small', {'data.path': 'mine'})
    assert Recipe.of_folder(tmp_path) is None
    (tmp_path / 'run.json').write_text(json.dumps({'stage': 'search', 'recipe': recipe.to_dict()}))
    assert Recipe.of_folder(tmp_path) == recipe
    assert Recipe.of_folder(tmp_path, ['retrain.epochs=3']).retrain.epochs == 3
    for damage in ('{"recipe', '[]', '{}'):
        (tmp_path / 'run.json').write_text(damage)
        with pytest.raises(InputError, match='run.json is damaged'):
            Recipe.of_folder(tmp_path)


def test_a_run_from_before_stratified_splits_keeps_its_split() -> None:
    for name in ('digits', 'pydoc'):
        old = Recipe.load(name).to_dict()
        old['data'].pop('split', None)
        read = Recipe.of_run(old)
        assert getattr(read.data, 'split', None) == ('random' if name == 'digits' else None)
        assert Recipe.of_run(Recipe.load(name).to_dict()) == Recipe.load(name)
        assert 'split' not in old['data']
