"""Another selection from the supernet of a finished search gives the same as a search with that selection from the start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from nni_darts.errors import InputError
from nni_darts.genotypes import AnyGenotype
from nni_darts.recipes import Recipe
from nni_darts.runs.derive import derivation
from nni_darts.runs.run import Run
from nni_darts.runs.spec import Watch
from tests.helpers import running, tiny
from tests.helpers.stopping import Stop, measured, stop_at


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')


@pytest.fixture(scope='module')
def search(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the output folder of a finished search with darts-1st."""
    folder = tmp_path_factory.mktemp('search')
    running.search(tiny.recipe(images), 'darts-1st', 3, folder)
    return folder


def derive(search: Path, output: Path, selection: str = 'pt', *, resume: bool = False, **watch: object) -> AnyGenotype:
    return Run(derivation(search, selection).spec(), output, Watch(**watch)).execute(resume=resume).genotype


def supernet_and_alpha(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / 'last.ckpt', weights_only=True)['state_dict']


@pytest.mark.parametrize('selection', ['pt', 'pt-mag', pytest.param('shapley', marks=pytest.mark.slow)])
def test_the_cell_the_decisions_and_the_weights_are_those_of_a_search_from_the_start(
    selection: str, search: Path, images: Path, tmp_path: Path
) -> None:
    whole, result = running.search(tiny.recipe(images), f'darts-1st+{selection}', 3, tmp_path / 'whole')
    assert derive(search, tmp_path / 'derived', selection) == whole
    for name in ('selection.jsonl', 'magnitude.json', 'genotype.json'):
        assert (tmp_path / 'derived' / name).read_text() == (tmp_path / 'whole' / name).read_text(), name
    searched = tiny.recipe(images).search.epochs
    assert measured(tmp_path / 'derived')[searched + 1 :] == measured(tmp_path / 'whole')[searched + 1 :]
    ours, theirs = (supernet_and_alpha(tmp_path / name) for name in ('derived', 'whole'))
    assert ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items() if isinstance(value, torch.Tensor)
    )
    derived = json.loads((tmp_path / 'derived' / 'result.json').read_text())
    assert derived['result']['passes'] == result['passes'] and derived['supernet'] == str(search)
    assert derived['strategy'] == f'darts-1st+{selection}'
    decided = [entry for line in measured(tmp_path / 'derived') for entry in line.get('decided', ())]
    assert len(decided) == len((tmp_path / 'whole' / 'selection.jsonl').read_text().splitlines())  # the page shows each once


def test_an_interrupted_derivation_resumes_even_without_the_search(search: Path, tmp_path: Path) -> None:
    shutil.copytree(search, tmp_path / 'search')
    unbroken = derive(tmp_path / 'search', tmp_path / 'unbroken')
    with pytest.raises(Stop):
        derive(tmp_path / 'search', tmp_path / 'broken', on_epoch=stop_at(5))
    spec = derivation(tmp_path / 'search', 'pt').spec()
    shutil.rmtree(tmp_path / 'search')
    torch.manual_seed(999)
    assert Run(spec, tmp_path / 'broken').execute(resume=True).genotype == unbroken
    assert measured(tmp_path / 'broken') == measured(tmp_path / 'unbroken')


def test_the_search_itself_is_left_as_it_is(search: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in search.iterdir() if path.is_file()}
    derive(search, tmp_path / 'derived', 'pt-mag')
    assert before == {path.name: path.read_bytes() for path in search.iterdir() if path.is_file()}


def test_settings_of_what_comes_after_the_search_may_change_and_no_others(search: Path) -> None:
    changed = derivation(search, 'pt', ['search.tuning_epochs=2', 'search.settings.darts-pt.criterion=loss'])
    assert changed.recipe.search.tuning_epochs == 2 and changed.strategy == 'darts-1st+pt' and changed.seed == 3
    after = ['retrain.epochs=7', 'retrain.channels=8', 'select.batch_size=8', 'select.validation_portion=0.3', 'limits.parameters=1M']
    recipe = derivation(search, 'pt', after).recipe
    assert (recipe.retrain.epochs, recipe.retrain.channels, recipe.select.batch_size) == (7, 8, 8)
    for key, value in (('search.batch_size', 8), ('space.channels', 4), ('data.split_seed', 1), ('precision', '64-true')):
        sentence = f'{key} belongs to the search in .* cannot change now; changes are allowed in .*retrain, and in settings of'
        with pytest.raises(InputError, match=sentence):
            derivation(search, 'pt', {key: value})


def test_settings_of_the_strategy_have_shaped_the_supernet(search: Path) -> None:
    for key in ('search.settings.darts-pt.weight_decay', 'search.settings.darts-1st+pt.warmup_epochs'):
        with pytest.raises(InputError, match=r'search\.settings\.darts-1st\+pt\.\w+ belongs to the search in .* and cannot change now'):
            derivation(search, 'pt', [f'{key}=1'])
    allowed = ['search.settings.darts-pt.epochs_between=2', 'search.settings.gdas.last=0.2']
    assert derivation(search, 'pt', allowed).strategy == 'darts-1st+pt'


def test_a_cell_derived_with_another_retraining_is_the_same(search: Path, tmp_path: Path) -> None:
    spec = derivation(search, 'pt-mag', ['retrain.channels=8', 'select.epochs=3']).spec()
    assert Run(spec, tmp_path / 'other').execute().genotype == derive(search, tmp_path / 'same', 'pt-mag')


def test_a_penalty_has_read_the_size_of_the_network_of_retrain(images: Path, tmp_path: Path) -> None:
    penalty = {'search.penalty': {'parameters': {'target': '5k', 'weight': 0.1}}}
    running.search(tiny.recipe(images).changed(penalty, source=''), 'darts-1st', 1, tmp_path / 'search')
    for change in ('retrain.channels=8', 'retrain.cells=4', 'retrain.pool_batch_norm=false'):
        with pytest.raises(InputError, match=f'{change.partition("=")[0]} belongs to .*, because search.penalty counts the costs of that'):
            derivation(tmp_path / 'search', 'pt', [change])
    assert derivation(tmp_path / 'search', 'pt', ['retrain.epochs=7', 'select.channels=8']).recipe.retrain.epochs == 7


def test_folders_without_a_supernet_to_select_from_are_refused_in_one_sentence(search: Path, images: Path, tmp_path: Path) -> None:
    recipe: Recipe = tiny.recipe(images)
    with pytest.raises(InputError, match='holds no search'):
        derivation(tmp_path, 'pt')
    running.search(recipe, 'random', 1, tmp_path / 'random')
    with pytest.raises(InputError, match='trains cells one by one'):
        derivation(tmp_path / 'random', 'pt')
    derive(search, tmp_path / 'derived', 'pt-mag')
    with pytest.raises(InputError, match='has fine-tuned the supernet .*give a search with darts-1st'):
        derivation(tmp_path / 'derived', 'pt')
    running.search(recipe, 'darts-pt', 1, tmp_path / 'alias')
    with pytest.raises(InputError, match='has fine-tuned the supernet .*give a search with darts-1st'):
        derivation(tmp_path / 'alias', 'pt')
    with pytest.raises(Stop):
        running.search(recipe, 'darts-1st', 1, tmp_path / 'unfinished', on_epoch=stop_at(2))
    with pytest.raises(InputError, match='is not finished; continue it'):
        derivation(tmp_path / 'unfinished', 'pt')
    running.search(recipe, 'sgas', 1, tmp_path / 'sgas')
    with pytest.raises(InputError, match=r'sgas, which has decided its edges during the search; search again with sgas\+pt'):
        derivation(tmp_path / 'sgas', 'pt')
    running.search(recipe.changed({'budget.passes': 3}, source=''), 'darts-1st', 1, tmp_path / 'budget')
    with pytest.raises(InputError, match=r'had a budget, which makes searches with \+pt-mag shorter; search again with darts-1st\+pt-mag'):
        derivation(tmp_path / 'budget', 'pt-mag')
    running.search(recipe, 'enas', 1, tmp_path / 'enas')
    with pytest.raises(InputError, match='enas'):
        derivation(tmp_path / 'enas', 'pt')
    shutil.copytree(search, tmp_path / 'copy')
    (tmp_path / 'copy' / 'last.ckpt').unlink()
    with pytest.raises(InputError, match='last.ckpt, which holds the supernet; search again with darts-1st'):
        derivation(tmp_path / 'copy', 'pt')
