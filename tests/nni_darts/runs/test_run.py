from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from nni_darts import PUBLISHED, Genotype, NasBench201Genotype
from nni_darts.errors import InputError
from nni_darts.genotypes import genotype_from_code, genotype_from_text
from nni_darts.recipes import Recipe
from nni_darts.report.searches import warnings_in
from nni_darts.runs import costs
from nni_darts.runs.tasks import task_of
from nni_darts.runs.weights import read_state_dict
from nni_darts.search_spaces import network_from_genotype
from nni_darts.strategies.fast import kernels
from tests.helpers import running
from tests.helpers.stopping import Stop, broken_and_resumed, measured, stop_at
from tests.helpers.tiny import overrides, recipe, write_images


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images.npz')


@pytest.fixture(scope='module')
def tiny(images: Path) -> Recipe:
    return recipe(images)


@pytest.mark.parametrize('strategy', ['darts-1st', 'darts-2nd', 'random'])
def test_search_leaves_what_a_user_wants_to_keep(strategy: str, tiny: Recipe, tmp_path: Path) -> None:
    epochs: list[dict] = []
    genotype, result = running.search(tiny, strategy, 1, tmp_path / 'out', on_epoch=epochs.append)
    assert Genotype.from_json((tmp_path / 'out' / 'genotype.json').read_text()) == genotype
    record = json.loads((tmp_path / 'out' / 'result.json').read_text())
    assert record['result'] == result
    assert Recipe.from_dict(record['recipe']) == tiny
    assert (record['strategy'], record['seed'], record['stage']) == (strategy, 1, 'search')
    assert record['versions']['torch'] == torch.__version__.partition('+')[0]
    assert 0 <= result['valid_accuracy'] <= 1 and result['parameters'] > 0 and result['multiply_adds'] > 0
    assert result['seconds'] > 0 and result['peak_memory_mib'] > 0
    assert len(epochs) == 2
    if strategy != 'random':
        lines = [json.loads(line) for line in (tmp_path / 'out' / 'metrics.jsonl').read_text().splitlines()]
        assert {'epoch', 'train_loss', 'train_accuracy', 'valid_loss', 'valid_accuracy', 'probabilities', 'genotype'} <= set(lines[-1])
        assert sum(lines[-1]['probabilities']['normal_op_2_0'].values()) == pytest.approx(1)


def test_orders_differ_and_seeds_repeat(tiny: Recipe, tmp_path: Path) -> None:
    running.search(tiny, 'darts-1st', 1, tmp_path / 'a')
    running.search(tiny, 'darts-1st', 1, tmp_path / 'b')
    running.search(tiny, 'darts-2nd', 1, tmp_path / 'c')
    running.search(tiny, 'darts-1st', 2, tmp_path / 'd')
    assert measured(tmp_path / 'a') == measured(tmp_path / 'b')
    assert measured(tmp_path / 'a')[-1]['probabilities'] != measured(tmp_path / 'c')[-1]['probabilities']
    assert measured(tmp_path / 'a')[-1]['train_loss'] != measured(tmp_path / 'd')[-1]['train_loss']


@pytest.mark.parametrize('strategy', ['darts-1st', 'darts-2nd'])
def test_a_resumed_search_is_the_unbroken_one(strategy: str, tiny: Recipe, tmp_path: Path) -> None:
    (unbroken, expected), (genotype, result) = broken_and_resumed(tiny, strategy, tmp_path)
    assert genotype == unbroken
    assert result['valid_accuracy'] == expected['valid_accuracy']
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


def test_a_resumed_retraining_is_the_unbroken_one(images: Path, tmp_path: Path) -> None:
    """With everything that draws random numbers: augmentation, cutout, drop-path."""
    busy = Recipe.load(
        'digits',
        {
            **overrides(images),
            'data.augment': 'crop',
            'data.pad': 1,
            'retrain.cutout': 2,
            'retrain.drop_path': 0.3,
            'retrain.auxiliary_weight': 0.4,
        },
    )
    cell = busy.random_cells(1)[0]
    expected = running.train_cell(busy, 'retrain', cell, 1, tmp_path / 'unbroken')
    with pytest.raises(Stop):
        running.train_cell(busy, 'retrain', cell, 1, tmp_path / 'broken', on_epoch=stop_at(2))
    result = running.train_cell(busy, 'retrain', cell, 1, tmp_path / 'broken', resume=True)
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    assert result['test_accuracy'] == expected['test_accuracy']
    weights = [read_state_dict(tmp_path / name / 'weights.pt') for name in ('broken', 'unbroken')]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def scale_in(folder: Path) -> float:
    return torch.load(folder / 'last.ckpt', weights_only=True)['MixedPrecision']['scale']


def test_runs_in_float16_resume_with_their_loss_scale(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torch.amp.GradScaler', partial(torch.amp.GradScaler, init_scale=2.0**34))  # overflows at first
    space = tiny.space.model_copy(update={'operations': ('none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3')})
    half = tiny.model_copy(update={'precision': '16-mixed', 'accelerator': 'cpu', 'space': space})
    (unbroken, expected), (genotype, result) = broken_and_resumed(half, 'darts-2nd', tmp_path)
    assert (genotype, result['valid_accuracy']) == (unbroken, expected['valid_accuracy'])
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    assert 1 < scale_in(tmp_path / 'broken') == scale_in(tmp_path / 'unbroken') < 2.0**34
    cell = half.random_cells(1)[0]
    expected = running.train_cell(half, 'retrain', cell, 1, tmp_path / 'whole')
    with pytest.raises(Stop):
        running.train_cell(half, 'retrain', cell, 1, tmp_path / 'parts', on_epoch=stop_at(2))
    result = running.train_cell(half, 'retrain', cell, 1, tmp_path / 'parts', resume=True)
    assert result['test_accuracy'] == expected['test_accuracy'] and measured(tmp_path / 'parts') == measured(tmp_path / 'whole')
    assert scale_in(tmp_path / 'parts') == scale_in(tmp_path / 'whole') < 2.0**34


def test_a_training_in_float16_whose_gradients_overflow_at_any_scale_has_diverged(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, 'cross_entropy', lambda *args, plain=functional.cross_entropy, **how: 1e30 * plain(*args, **how))
    retrain = tiny.retrain.model_copy(update={'epochs': 5})
    half = tiny.model_copy(update={'precision': '16-mixed', 'accelerator': 'cpu', 'retrain': retrain})
    with pytest.raises(ArithmeticError, match='the gradient of the weights is not finite in step 6 of epoch 3 .step 18 in all'):
        running.train_cell(half, 'retrain', tiny.random_cells(1)[0], 1, tmp_path)


def test_a_finished_run_is_not_done_again(tiny: Recipe, tmp_path: Path) -> None:
    first = running.search(tiny, 'darts-1st', 1, tmp_path)
    assert running.search(tiny, 'darts-1st', 1, tmp_path, resume=True, on_epoch=stop_at(1)) == first


def test_a_run_killed_between_the_last_epoch_and_its_result(tiny: Recipe, tmp_path: Path) -> None:
    cell = tiny.random_cells(1)[0]
    expected = running.train_cell(tiny, 'retrain', cell, 1, tmp_path)
    (tmp_path / 'result.json').unlink()
    result = running.train_cell(tiny, 'retrain', cell, 1, tmp_path, resume=True)
    assert {k: v for k, v in result.items() if k != 'peak_memory_mib'} == {k: v for k, v in expected.items() if k != 'peak_memory_mib'}
    searched, before = running.search(tiny, 'darts-1st', 1, tmp_path / 's')
    (tmp_path / 's' / 'result.json').unlink()
    again, after = running.search(tiny, 'darts-1st', 1, tmp_path / 's', resume=True)
    assert again == searched and after['valid_accuracy'] == before['valid_accuracy']


def test_nothing_is_overwritten(tiny: Recipe, images: Path, tmp_path: Path) -> None:
    running.train_cell(tiny, 'select', tiny.random_cells(1)[0], 1, tmp_path)
    with pytest.raises(InputError, match='--resume'):
        running.train_cell(tiny, 'select', tiny.random_cells(1)[0], 1, tmp_path)
    with pytest.raises(InputError, match='seed'):
        running.train_cell(tiny, 'select', tiny.random_cells(1)[0], 2, tmp_path, resume=True)
    other = Recipe.load('digits', {**overrides(images), 'retrain.channels': 5})
    with pytest.raises(InputError, match='recipe.retrain.channels'):
        running.train_cell(other, 'select', tiny.random_cells(1)[0], 1, tmp_path, resume=True)


def test_a_folder_with_other_files_of_the_same_name_is_left_alone(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / 'genotype.json').write_text('mine')
    with pytest.raises(InputError, match='genotype.json'):
        running.search(tiny, 'darts-1st', 1, tmp_path, resume=True)
    assert (tmp_path / 'genotype.json').read_text() == 'mine'


def test_a_run_that_never_started_does_not_block_its_folder(tiny: Recipe, images: Path, tmp_path: Path) -> None:
    odd = Recipe.load('digits', {**overrides(images), 'search.settings': {'darts-1st': {'momentum': 1}}})
    with pytest.raises(InputError, match='momentum'):
        running.search(odd, 'darts-1st', 1, tmp_path)
    running.search(tiny, 'darts-1st', 1, tmp_path)


@pytest.mark.parametrize('damage', ['last.ckpt', 'metrics.jsonl', 'run.json'])
def test_damaged_files_are_one_sentence(damage: str, tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        running.search(tiny, 'darts-1st', 1, tmp_path, on_epoch=stop_at(2))
    (tmp_path / damage).write_bytes((tmp_path / damage).read_bytes()[:20])
    with pytest.raises(InputError, match='damaged') as error:
        running.search(tiny, 'darts-1st', 1, tmp_path, resume=True)
    assert '\n' not in str(error.value)


def test_a_folder_that_cannot_be_made(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot make'):
        running.search(tiny, 'darts-1st', 1, tmp_path / 'file' / 'out')


def test_only_retraining_touches_test_data(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_darts.data import ImageDataModule

    def forbidden(self: object) -> None:
        raise AssertionError('test data')

    monkeypatch.setattr(ImageDataModule, 'test_dataloader', forbidden)
    running.search(tiny, 'darts-1st', 1, tmp_path / 'search')
    assert 'test_accuracy' not in running.train_cell(tiny, 'select', tiny.random_cells(1)[0], 1, tmp_path / 'select')
    with pytest.raises(AssertionError, match='test data'):
        running.train_cell(tiny, 'retrain', tiny.random_cells(1)[0], 1, tmp_path / 'retrain')


def test_saved_weights_are_those_that_were_tested(tiny: Recipe, tmp_path: Path) -> None:
    from nni_darts.data import ImageDataModule, load_images

    cell = tiny.random_cells(1)[0]
    result = running.train_cell(tiny, 'retrain', cell, 1, tmp_path)
    network = network_from_genotype(cell, tiny.retrain.channels, tiny.retrain.cells, 10, in_channels=1)
    network.load_state_dict(read_state_dict(tmp_path / 'weights.pt'))
    module = ImageDataModule(load_images(tiny.data), tiny.data, train_portion=0.5, batch_size=16, seed=1)
    network.eval()
    hits = sum(int((network(batch).argmax(1) == labels).sum()) for batch, labels in module.test_dataloader())
    assert hits / 40 == pytest.approx(result['test_accuracy'])


def test_without_held_out_data_there_is_no_validation_accuracy(images: Path, tmp_path: Path) -> None:
    everything = Recipe.load('digits', {**overrides(images), 'retrain.validation_portion': 0.0})
    result = running.train_cell(everything, 'retrain', everything.random_cells(1)[0], 1, tmp_path)
    assert 'valid_accuracy' not in result and 'test_accuracy' in result


def test_a_diverged_training_stops_with_a_hint(images: Path, tmp_path: Path) -> None:
    wild = Recipe.load(
        'digits', {**overrides(images), 'retrain.learning_rate': 900.0, 'retrain.gradient_clip': None, 'retrain.weight_decay': 500.0}
    )
    with pytest.raises(ArithmeticError, match='in step .* at learning rate 900: the training has diverged; lower the learning rate'):
        running.train_cell(wild, 'retrain', wild.random_cells(1)[0], 1, tmp_path / 'retrain')
    wild = Recipe.load(
        'digits', {**overrides(images), 'search.learning_rate': 900.0, 'search.gradient_clip': None, 'search.weight_decay': 500.0}
    )
    with pytest.raises(ArithmeticError, match='in step .* at learning rate 450: the training has diverged'):
        running.search(wild, 'darts-2nd', 1, tmp_path / 'search')
    assert not (tmp_path / 'search' / 'genotype.json').exists()


def test_unknown_strategies_and_settings(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='unknown strategy'):
        running.search(recipe(images), 'darts', 1, tmp_path / 'a')
    odd = Recipe.load('digits', {**overrides(images), 'search.settings': {'darts-1st': {'momentum': 1}}})
    with pytest.raises(InputError, match='momentum'):
        running.search(odd, 'darts-1st', 1, tmp_path / 'b')


def in_nasbench201(images: Path, **changes: object) -> Recipe:
    space = {'space': {'name': 'nasbench201', 'channels': 2, 'cells': 3}}
    return Recipe.load('digits', {**overrides(images), **space, **changes})


@pytest.mark.parametrize('strategy', ['darts-1st', 'fixed-alpha+pt', 'random', 'evolution'])
def test_nasbench201_goes_all_the_way(strategy: str, images: Path, tmp_path: Path) -> None:
    recipe = in_nasbench201(images)
    genotype, _ = running.search(recipe, strategy, 1, tmp_path / 'search')
    assert isinstance(genotype, NasBench201Genotype)
    assert genotype_from_text((tmp_path / 'search' / 'genotype.json').read_text()) == genotype
    assert genotype_from_code(genotype.code()) == genotype
    assert running.search(recipe, strategy, 1, tmp_path / 'search', resume=True)[0] == genotype
    result = running.train_cell(recipe, 'retrain', genotype, 1, tmp_path / 'retrain')
    assert 0 <= result['test_accuracy'] <= 1 and result['parameters'] > 0


def test_cells_that_do_not_fit_the_sizes(images: Path, tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(images), 'retrain.cells': 5})
    with pytest.raises(InputError, match=r'^retrain\.cells must be a multiple of 3'):
        running.train_cell(recipe, 'retrain', NasBench201Genotype.from_code('nb201.333333'), 1, tmp_path)
    for key in ('retrain.auxiliary_weight', 'retrain.drop_path'):
        with pytest.raises(InputError, match=f'{key} must be 0'):
            in_nasbench201(images, **{key: 0.4})
    with pytest.raises(InputError, match=r'retrain\.cells must be a multiple of 3'):
        in_nasbench201(images, **{'retrain.cells': 4})


def test_random_search_draws_from_the_space_of_the_recipe(images: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(images), 'space': {'name': 's2', 'channels': 2, 'cells': 3}, 'search.random_samples': 20})
    used = {name for cell in recipe.random_cells(1) for kind in ('normal', 'reduce') for name, _ in cell.cell(kind)[0]}
    assert used == {'skip_connect', 'sep_conv_3x3'}


def test_evolution_goes_on_where_it_stopped(tiny: Recipe, tmp_path: Path) -> None:
    def stop_at_the_third_cell(record: dict) -> None:
        if (tmp_path / 'broken' / 'cell-2').exists():
            raise Stop

    genotype, result = running.search(tiny, 'evolution', 1, tmp_path / 'unbroken')
    with pytest.raises(Stop):
        running.search(tiny, 'evolution', 1, tmp_path / 'broken', on_epoch=stop_at_the_third_cell)
    again, resumed = running.search(tiny, 'evolution', 1, tmp_path / 'broken', resume=True)
    assert (again, resumed['valid_accuracy']) == (genotype, result['valid_accuracy'])
    cells = {
        folder: (tmp_path / folder / f'cell-{index}' / 'genotype.json').read_text()
        for folder in ('broken', 'unbroken')
        for index in range(4)
    }
    assert cells['broken'] == cells['unbroken']
    trained = [json.loads((tmp_path / 'unbroken' / f'cell-{index}' / 'result.json').read_text()) for index in range(4)]
    assert len({json.dumps(record['genotype']) for record in trained}) == 4
    assert result['valid_accuracy'] == max(record['result']['valid_accuracy'] for record in trained)
    assert [genotype_from_text(json.dumps(record['genotype'])) for record in trained[:2]] == tiny.random_cells(1)


@pytest.mark.parametrize(
    ('strategy', 'settings', 'names'),
    [
        ('evolution', {'cells': 3, 'population': 3}, 'of 3 cells the first 3 are random'),
        ('evolution', {'pop': 3}, "no setting 'pop'; it has cells, population, sample, parallel"),
        ('random', {'cells': 3}, 'search.random_samples'),
    ],
)
def test_settings_of_strategies_without_a_supernet(strategy: str, settings: dict, names: str, images: Path, tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(images), f'search.settings.{strategy}': settings})
    with pytest.raises(InputError, match=names):
        running.search(recipe, strategy, 1, tmp_path)
    with pytest.raises(InputError, match=names):
        costs.preflight(recipe, [strategy], task_of(recipe).load(recipe))


def test_preflight_builds_what_a_strategy_makes_of_the_space(images: Path) -> None:
    from nni_darts.data import load_images

    narrow = Recipe.load('digits', {**overrides(images), 'space.channels': 6})
    with pytest.raises(InputError, match='pc-darts in the space darts: .* cannot be divided by 4'):
        costs.preflight(narrow, ['darts-1st', 'pc-darts'], load_images(narrow.data))


def test_decisions_are_reported_and_written_down(images: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(
        'digits', {**overrides(images), 'search.epochs': 1, 'space.nodes': 1, 'search.settings': {'darts-pt': {'batches': 1}}}
    )
    epochs: list[dict] = []
    decisions: list[dict] = []
    genotype, _ = running.search(recipe, 'darts-pt', 1, tmp_path, on_epoch=epochs.append, on_decision=decisions.append)
    assert [(epoch['epoch'], epoch['decisions'], epoch['of_decisions']) for epoch in epochs] == [(1, 2, 4), (2, 4, 4)]
    assert epochs == [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [record for epoch in epochs for record in epoch['decided']] == decisions
    assert [record['epoch'] for record in decisions] == [1, 1, 2, 2]
    shown = json.loads((tmp_path / 'search.json').read_text())
    assert shown['over'] and [entry['label'] for entry in shown['decisions']] == [record['label'] for record in decisions]
    assert '<svg ' in (tmp_path / 'search.html').read_text()
    assert decisions == [json.loads(line) for line in (tmp_path / 'selection.jsonl').read_text().splitlines()]
    # What magnitude would have chosen as the search ended, from the same supernet.
    by_magnitude = Genotype.from_json((tmp_path / 'magnitude.json').read_text())
    first = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[0])['probabilities']
    for kind in ('normal', 'reduce'):
        for name, source in by_magnitude.cell(kind)[0]:
            table = {key: value for key, value in first[f'{kind}_op_2_{source}'].items() if key != 'none'}
            assert name == max(table, key=table.__getitem__)


@pytest.mark.parametrize(('strategy', 'warm'), [('pc-darts', 3), ('darts-1st', 0)])
def test_alpha_rests_as_long_as_the_method_says(strategy: str, warm: int, images: Path, tmp_path: Path) -> None:
    """PC-DARTS: 15 of 50 epochs, so 3 of 10."""
    recipe = Recipe.load('digits', {**overrides(images), 'search.epochs': 10, 'space.channels': 4, 'space.nodes': 1})
    running.search(recipe, strategy, 1, tmp_path)
    tables = [json.loads(line)['probabilities'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [before == after for before, after in zip(tables, tables[1:])].count(True) == max(0, warm - 1)


def executor_of(folder: Path, file: str = 'result.json') -> dict:
    return json.loads((folder / file).read_text())['executor']


@pytest.mark.parametrize(('strategy', 'kept_by'), [('darts-1st', 'run.json'), ('darts-1st', 'last.ckpt'), ('p-darts', 'run.json')])
def test_a_resumed_search_keeps_its_executor(
    strategy: str, kept_by: str, tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another one would be chosen by now: it ends as if it had never been interrupted, bit for bit."""
    kernels.kernels(torch.zeros(1))  # from where they are
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    memory = tmp_path / 'cache' / 'nni-darts' / 'executors.json'
    settings = {'p-darts': {'cells': [3, 3, 4], 'keep': [3, 2]}}
    space = tiny.space.model_copy(update={'operations': ('none', 'skip_connect', 'sep_conv_3x3', 'max_pool_3x3')})
    recipe = tiny.model_copy(update={'search': tiny.search.model_copy(update={'settings': settings}), 'space': space})
    running.search(recipe, strategy, 1, tmp_path / 'unbroken')
    first = executor_of(tmp_path / 'unbroken')
    assert first['how'] == 'chosen' and first == executor_of(tmp_path / 'unbroken', 'run.json')
    with pytest.raises(Stop):
        running.search(recipe, strategy, 1, tmp_path / 'broken', on_epoch=stop_at(2))
    assert executor_of(tmp_path / 'broken', 'run.json') == {**first, 'how': 'remembered'}
    other = 'plain' if first['name'] != 'plain' else 'joined'
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), {'name': other, 'milliseconds': {}})))
    if kept_by == 'last.ckpt':
        run = json.loads((tmp_path / 'broken' / 'run.json').read_text())
        del run['executor']
        (tmp_path / 'broken' / 'run.json').write_text(json.dumps(run))
    running.search(recipe, strategy, 1, tmp_path / 'broken', resume=True)
    assert executor_of(tmp_path / 'broken') == {**first, 'how': 'remembered'}
    assert measured(tmp_path / 'unbroken') == measured(tmp_path / 'broken')
    running.search(recipe, strategy, 1, tmp_path / 'new')
    assert executor_of(tmp_path / 'new')['name'] == other


@pytest.mark.parametrize(
    ('strategy', 'settings', 'expected'),
    [
        ('darts-1st', {'execution': 'joined'}, {'name': 'joined', 'how': 'pinned'}),
        ('darts-1st', {'execution': 'plain'}, {'name': 'plain', 'how': 'pinned'}),
        ('gdas', {}, {'name': 'plain', 'how': 'only'}),
    ],
)
def test_result_names_the_executor(strategy: str, settings: dict, expected: dict, tiny: Recipe, tmp_path: Path) -> None:
    search = tiny.search.model_copy(update={'epochs': 1, 'settings': {strategy: settings}})
    recipe = tiny.model_copy(update={'search': search})
    running.search(recipe, strategy, 1, tmp_path)
    assert executor_of(tmp_path) == expected


@pytest.mark.parametrize(
    ('strategy', 'execution', 'precision', 'message'),
    [
        ('gdas', 'joined', '32-true', 'gdas in the space darts: execution: joined cannot compute what this space becomes with Gumbel'),
        ('p-darts', 'piecewise', 'bf16-mixed', 'p-darts in the space darts: execution: piecewise does not compute in 16 bits'),
        ('darts-1st', 'compiled', '32-true', 'darts-1st in the space darts: execution: compiled has no kernels here'),
    ],
)
def test_an_executor_that_cannot_be_used_is_refused_before_anything_starts(
    strategy: str, execution: str, precision: str, message: str, tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('NNI_DARTS_KERNELS', 'off')
    search = tiny.search.model_copy(update={'settings': {strategy: {'execution': execution}}})
    recipe = tiny.model_copy(update={'precision': precision, 'accelerator': 'cpu', 'search': search})
    with pytest.raises(InputError, match=message):
        running.search(recipe, strategy, 1, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    with pytest.raises(InputError, match=message):
        costs.preflight(recipe, [strategy], task_of(recipe).load(recipe))


def old_run(output: Path) -> None:
    """Makes a run look like one of version 0.1, before splits were stratified."""
    run = json.loads((output / 'run.json').read_text())
    known = ('name', 'path', 'image_size', 'test_portion', 'split_seed', 'augment', 'pad', 'workers')
    run['recipe']['data'] = {name: run['recipe']['data'][name] for name in known}
    run['recipe'].pop('metric', None)
    run['recipe']['search'].pop('portion', None)
    (output / 'run.json').write_text(json.dumps(run))


def test_a_run_with_the_old_split_is_continued_with_it_or_refused(tiny: Recipe, images: Path, tmp_path: Path) -> None:
    running.train_cell(tiny, 'select', PUBLISHED['DARTS_V2'], 1, tmp_path / 'new')
    old_run(tmp_path / 'new')
    with pytest.raises(InputError, match='another recipe.data.split.*so add --set data.split=random'):
        running.train_cell(tiny, 'select', PUBLISHED['DARTS_V2'], 1, tmp_path / 'new', resume=True)
    random = Recipe.load('digits', {**overrides(images), 'data.split': 'random'})
    result = running.train_cell(random, 'select', PUBLISHED['DARTS_V2'], 1, tmp_path / 'old')
    old_run(tmp_path / 'old')
    assert running.train_cell(random, 'select', PUBLISHED['DARTS_V2'], 1, tmp_path / 'old', resume=True) == result


def test_headline_warnings_and_the_largest_class(images: Path, tmp_path: Path) -> None:
    """Seven images of one class, one of another: never right by chance."""
    arrays = dict(np.load(images))
    arrays['train_labels'] = np.minimum(arrays['train_labels'], 1)
    arrays['test_labels'] = np.zeros_like(arrays['test_labels'])
    np.savez(tmp_path / 'skewed.npz', **arrays)
    recipe = Recipe.load('digits', {**overrides(tmp_path / 'skewed.npz'), 'search.architecture_learning_rate': 1e-4})
    said: list[tuple[str, list[str]]] = []
    running.search(recipe, 'darts-1st', 1, tmp_path / 'search', on_start=lambda *lines: said.append(lines))
    result = running.train_cell(recipe, 'retrain', PUBLISHED['DARTS_V2'], 1, tmp_path / 'out', on_start=lambda *lines: said.append(lines))
    headline = f'recipe digits; data npz {tmp_path / "skewed.npz"}: 96 training and 40 test images, 2 classes, 1×8×8'
    lacking = 'the part "test" has no image of the class: 1; add some'
    assert [line for line, _ in said] == [headline, headline]
    assert [warnings[0] for _, warnings in said] == [lacking, lacking]
    assert said[0][1][1].startswith('darts-1st: 6 steps of α at a learning rate of 0.0001') and len(said[1][1]) == 1
    assert result['largest_class'] == 1.0 and result['images'] == 40
    assert 'nothing was decided' in warnings_in(tmp_path / 'search')[0]
    found = json.loads((tmp_path / 'search' / 'result.json').read_text())['result']
    assert 0.85 < found['largest_class'] < 0.95 and found['images'] == 48


def test_another_metric_chooses_cells_and_is_tested(tiny: Recipe, images: Path, tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(images), 'metric': 'auroc', 'data.class_weights': 'balanced', 'search.epochs': 1})
    _, found = running.search(recipe, 'darts-1st', 1, tmp_path / 'search')
    epoch = measured(tmp_path / 'search')[-1]
    assert (found['valid_auroc'], found['valid_accuracy']) == (epoch['valid_auroc'], epoch['valid_accuracy'])
    assert 'train_auroc' not in epoch and epoch['valid_auroc'] != epoch['valid_accuracy']
    assert 'AUROC, %' in (tmp_path / 'search' / 'search.html').read_text()
    _, best = running.search(recipe, 'random', 1, tmp_path / 'random')
    cells = [json.loads((tmp_path / 'random' / f'cell-{number}' / 'result.json').read_text())['result'] for number in range(2)]
    assert best['valid_auroc'] == max(cell['valid_auroc'] for cell in cells)
    trained = running.train_cell(recipe, 'retrain', PUBLISHED['DARTS_V2'], 1, tmp_path / 'trained')
    assert {'test_auroc', 'test_accuracy', 'train_accuracy'} <= set(trained)


@pytest.mark.parametrize(('metric', 'criterion'), [('accuracy', 'accuracy'), ('f1', 'loss')])
def test_other_metrics_score_batches_by_the_loss(metric: str, criterion: str, images: Path) -> None:
    """Unless a criterion is set."""
    from nni_darts.runs.costs import configured_strategy

    recipe = Recipe.load('digits', {**overrides(images), 'metric': metric})
    assert configured_strategy(recipe, 'darts-pt').selection.scoring.criterion == criterion
    assert configured_strategy(recipe, 'enas').architect.criterion == criterion
    assert configured_strategy(recipe, 'darts-1st+pt-mag').selection.epochs_between == 1
    chosen = Recipe.load('digits', {**overrides(images), 'metric': metric, 'search.settings.darts-pt': {'criterion': 'accuracy'}})
    assert configured_strategy(chosen, 'darts-pt').selection.scoring.criterion == 'accuracy'


def test_class_weights_need_labels(tiny: Recipe, images: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(images), 'data.class_weights': 'balanced'})
    data = task_of(recipe).load(recipe)
    hidden = dataclasses.replace(data, train=[data.train[index] for index in range(len(data.train))])
    with pytest.raises(InputError, match='class_weights: balanced needs the labels'):
        costs.preflight(recipe, ['darts-1st'], hidden)
    module, _ = task_of(recipe).searching(recipe, data, 1)
    assert float(module.class_weights[data.train.labels].mean()) == pytest.approx(1)
