"""The stages on text: everything that the tests of the stages on images ask for, where text is different."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nni_darts import PUBLISHED, RnnGenotype
from nni_darts.data import TextDataModule
from nni_darts.errors import InputError
from nni_darts.genotypes import genotype_from_text
from nni_darts.recipes import Recipe, TextRecipe
from nni_darts.runs import costs
from nni_darts.runs.tasks import task_of
from nni_darts.runs.weights import read_state_dict
from nni_darts.search_spaces import Dropouts, network_from_genotype
from tests.helpers import running
from tests.helpers.stopping import Stop, broken_and_resumed, measured, stop_at
from tests.helpers.tiny import SMALL, text_overrides, text_recipe, write_text

CELL = RnnGenotype.from_code('rnn.t0r1')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp('text'))


@pytest.fixture(scope='module')
def tiny(folder: Path) -> Recipe:
    return text_recipe(folder)


def changed(folder: Path, **changes: object) -> Recipe:
    return Recipe.load('pydoc', {**text_overrides(folder), **{key.replace('__', '.'): value for key, value in changes.items()}})


@pytest.mark.parametrize('strategy', ['darts-1st', 'darts-2nd', 'darts-2nd+pt', 'random'])
def test_search_leaves_what_a_user_wants_to_keep(strategy: str, tiny: Recipe, tmp_path: Path) -> None:
    epochs: list[dict] = []
    genotype, result = running.search(tiny, strategy, 1, tmp_path, on_epoch=epochs.append)
    assert isinstance(genotype, RnnGenotype) and genotype.nodes == 2
    assert genotype_from_text((tmp_path / 'genotype.json').read_text()) == genotype
    assert 1 < result['valid_perplexity'] < 30 and result['parameters'] > 0 and result['multiply_adds'] > 0
    assert {'train_loss', 'train_perplexity', 'valid_loss', 'valid_perplexity'} <= set(epochs[-1])
    if '+pt' in strategy:
        assert [epoch['decisions'] for epoch in epochs] == [0, 1, 2, 3, 4, 4]  # three edges, one input; an epoch between
        scores = [json.loads(line)['scores'] for line in (tmp_path / 'selection.jsonl').read_text().splitlines()]
        assert all(0 <= score <= 1 for line in scores for score in line)  # parts of all words that are predicted right


@pytest.mark.parametrize('strategy', ['random', 'evolution'])
def test_the_best_cell_has_the_lowest_perplexity(strategy: str, folder: Path, tmp_path: Path) -> None:
    recipe = changed(folder, search__random_samples=4, select__epochs=2)
    genotype, result = running.search(recipe, strategy, 1, tmp_path)
    results = [json.loads((tmp_path / f'cell-{index}' / 'result.json').read_text()) for index in range(4)]
    found = [entry['result']['valid_perplexity'] for entry in results]
    assert result['valid_perplexity'] == min(found) < max(found)
    assert json.loads(genotype.to_json()) == results[found.index(min(found))]['genotype']


@pytest.mark.parametrize('strategy', ['darts-1st', 'darts-2nd'])
def test_a_resumed_search_is_the_unbroken_one(strategy: str, tiny: Recipe, tmp_path: Path) -> None:
    (unbroken, _), (genotype, _) = broken_and_resumed(tiny, strategy, tmp_path)
    assert genotype == unbroken
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


def test_a_retraining_resumed_three_times_is_the_unbroken_one(folder: Path, tmp_path: Path) -> None:
    """Before and after averaging begins, with random lengths and every dropout."""
    dropouts = {'embedding': 0.2, 'x': 0.2, 'output': 0.2}
    recipe = changed(folder, retrain__epochs=8, retrain__learning_rate=15.0, retrain__gradient_clip=1.0, retrain__dropouts=dropouts)
    expected = running.train_cell(recipe, 'retrain', CELL, 1, tmp_path / 'unbroken')
    begun = torch.load(tmp_path / 'unbroken' / 'last.ckpt', weights_only=True)['language_model']
    assert begun['average'] is not None
    for epoch in (2, 5, 7):
        with pytest.raises(Stop):
            running.train_cell(recipe, 'retrain', CELL, 1, tmp_path / 'broken', on_epoch=stop_at(epoch), resume=epoch > 2)
    result = running.train_cell(recipe, 'retrain', CELL, 1, tmp_path / 'broken', resume=True)
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')
    assert result['test_perplexity'] == expected['test_perplexity']
    weights = [read_state_dict(tmp_path / name / 'weights.pt') for name in ('broken', 'unbroken')]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_saved_weights_are_those_that_validated_best(folder: Path, tmp_path: Path) -> None:
    recipe = changed(folder, retrain__epochs=6, retrain__learning_rate=15.0, retrain__gradient_clip=1.0)
    result = running.train_cell(recipe, 'retrain', CELL, 1, tmp_path)
    found = [epoch['valid_perplexity'] for epoch in measured(tmp_path)]
    assert result['valid_perplexity'] == min(found) < found[-1]
    task = task_of(recipe)
    data = task.load(recipe)
    network = network_from_genotype(CELL, vocabulary=data.vocabulary, embedding=8, hidden=8, dropouts=Dropouts(0, 0, 0, 0, 0))
    network.load_state_dict(read_state_dict(tmp_path / 'weights.pt'))
    _, datamodule = task.training(recipe, 'retrain', data, 1)
    for loader, part in ((datamodule.val_dataloader(), 'valid'), (datamodule.test_dataloader(), 'test')):
        total, count, hidden = 0.0, 0, None
        for tokens, targets, _ in loader:
            logits, hidden, *_ = network.eval()(tokens, hidden)
            total += float(torch.nn.functional.cross_entropy(logits.detach(), targets, reduction='sum'))
            count += len(targets)
        assert torch.tensor(total / count).exp().item() == pytest.approx(result[f'{part}_perplexity'], rel=1e-4)


def test_only_retraining_touches_test_data(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: object) -> None:
        raise AssertionError('test data')

    monkeypatch.setattr(TextDataModule, 'test_dataloader', forbidden)
    running.search(tiny, 'darts-1st', 1, tmp_path / 'search')
    assert 'test_perplexity' not in running.train_cell(tiny, 'select', CELL, 1, tmp_path / 'select')
    with pytest.raises(AssertionError, match='test data'):
        running.train_cell(tiny, 'retrain', CELL, 1, tmp_path / 'retrain')


def test_a_cell_found_on_one_text_retrains_on_another(tiny: Recipe, tmp_path: Path) -> None:
    genotype, _ = running.search(tiny, 'darts-1st', 1, tmp_path / 'search')
    other = write_text(tmp_path, train=300, valid=60, test=50)
    (other / 'tiny.train.txt').write_text((other / 'tiny.train.txt').read_text().replace('w8', 'another word'))
    result = running.train_cell(text_recipe(other), 'retrain', genotype, 1, tmp_path / 'retrain')
    assert result['test_perplexity'] > 1


def test_cells_of_the_other_kind_are_one_sentence(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='trains recurrent cells'):
        running.train_cell(tiny, 'retrain', PUBLISHED['DARTS_V2'], 1, tmp_path / 'a')
    with pytest.raises(InputError, match='trains convolutional cells'):
        costs.cost_of(PUBLISHED['DARTS_V2-RNN'], Recipe.load('cifar10'), task_of(Recipe.load('cifar10')).shape(Recipe.load('cifar10')))
    with pytest.raises(InputError, match='too few'):
        costs.preflight(changed(tmp_path.parent, data={'name': 'pydoc'}, search__batch_size=100_000), [], task_of(tiny).load(tiny))


def test_cost(tiny: Recipe) -> None:
    """Eleven words (nine, <eos>, <unk>), 8 units: embedding 88, bias 11, W₀ 256, two nodes of 128."""
    cost = costs.cost_of(CELL, tiny, task_of(tiny).shape(tiny))
    assert cost == {'parameters': 88 + 11 + 256 + 256, 'multiply_adds': 256 + 256 + 88}


def test_a_strategy_that_needs_images_is_one_sentence_before_it_starts(tiny: Recipe) -> None:
    with pytest.raises(InputError, match='pc-darts in the space recurrent: .* of images'):
        costs.preflight(tiny, ['pc-darts'], task_of(tiny).load(tiny))


@pytest.mark.parametrize(
    'strategy', ['fixed-alpha+pt', 'sdarts-rs', 'gdas', 'sgas', 'enas', 'random-ws', 'darts-joint', 'darts-coordinate']
)
def test_other_strategies(strategy: str, folder: Path, tmp_path: Path) -> None:
    genotype, result = running.search(changed(folder, search__epochs=4, space__nodes=1, **SMALL), strategy, 1, tmp_path)
    assert genotype.nodes == 1 and result['valid_perplexity'] > 1


@pytest.mark.parametrize('name', ['pydoc', 'ptb', 'wikitext2'])
def test_recipes(name: str) -> None:
    recipe = Recipe.load(name)
    assert isinstance(recipe, TextRecipe) and recipe.metric.optimize_mode == 'minimize'
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    for strategy in ('darts-2nd', 'darts-2nd+pt', 'darts-2nd+pt-mag'):
        assert recipe.search.settings[strategy]['clip_norm'] == recipe.search.gradient_clip


def test_published_settings() -> None:
    ptb, wikitext2 = Recipe.load('ptb'), Recipe.load('wikitext2')
    assert (ptb.search.batch_size, ptb.search.bptt, ptb.search.learning_rate, ptb.search.weight_decay) == (256, 35, 20, 5e-7)
    assert ptb.search.dropouts.model_dump() == {'embedding': 0.0, 'input': 0.2, 'x': 0.75, 'hidden': 0.25, 'output': 0.75}
    assert (ptb.search.architecture_learning_rate, ptb.search.architecture_weight_decay, ptb.search.gradient_clip) == (3e-3, 1e-3, 0.25)
    assert (ptb.retrain.hidden, ptb.retrain.batch_size, ptb.retrain.weight_decay, ptb.retrain.averaging) == (850, 64, 8e-7, 5)
    assert (wikitext2.retrain.hidden, wikitext2.retrain.weight_decay) == (700, 5e-7)
    for recipe, hidden in ((ptb, 0.25), (wikitext2, 0.15)):
        wanted = {'embedding': 0.1, 'input': 0.2, 'x': 0.75, 'hidden': hidden, 'output': 0.75}
        assert recipe.retrain.dropouts.model_dump() == wanted
        assert recipe.retrain.temporal_regularisation == 1e-3 and recipe.retrain.activation_regularisation == 0


@pytest.mark.parametrize(
    ('changes', 'names'),
    [
        ({'data': {'name': 'text'}}, 'needs data.path'),
        ({'data': {'name': 'pydoc', 'path': 'x'}}, 'data.path is for data set text'),
        ({'data': {'name': 'pydoc', 'image_size': 3}}, "unknown key 'data.image_size'; allowed: name, path"),
        ({'space': {'name': 'darts', 'hidden': 3}}, 'space.name'),
        ({'search.momentum': 0.9}, "unknown key 'search.momentum'"),
        ({'search.batch_size': 1}, 'search.batch_size'),
        ({'search.warmup_epochs': 6}, 'warmup_epochs is 6'),
        ({'retrain.averaging': 0}, 'retrain.averaging'),
        ({'retrain.dropouts': {'outptu': 0.1}}, "did you mean 'output'"),
        ({'retrain.dropouts': {'output': 1.0}}, 'retrain.dropouts.output'),
        ({'retrain.channels': 4}, "unknown key 'retrain.channels'"),
    ],
)
def test_wrong_settings_are_one_sentence(changes: dict, names: str) -> None:
    with pytest.raises(InputError, match=names.replace('.', r'\.')) as error:
        Recipe.load('pydoc', changes)
    assert '\n' not in str(error.value)
