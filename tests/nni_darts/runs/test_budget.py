"""What a search costs, counted, and what a budget buys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.errors import InputError
from nni_darts.experiment.protocol import Protocol
from nni_darts.recipes import Recipe
from nni_darts.runs import costs
from nni_darts.runs.budget import affordable_epochs, training_passes
from nni_darts.runs.cells import number_of_cells
from nni_darts.runs.tasks import task_of
from nni_darts.strategies import METHODS, create_strategy
from nni_darts.strategies.differentiable import DifferentiableModule
from nni_darts.training import ImageClassifier
from tests.helpers import running
from tests.helpers.tiny import SMALL, overrides, text_overrides, write_images, write_text

SUPERNETS = [name for name, entry in METHODS.items() if not entry.one_by_one]


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def small(images: Path, **changes: object) -> Recipe:
    """The tiny recipe with one node in a cell; two underscores stand for a dot."""
    changes = {key.replace('__', '.'): value for key, value in changes.items()}
    return Recipe.load('digits', {**overrides(images), 'space.channels': 4, 'space.nodes': 1, **SMALL, **changes})


# The products with the Hessian of idarts are no passes that could be counted here.
@pytest.mark.parametrize('name', [*(name for name in SUPERNETS if name != 'idarts'), 'darts-pt'])
def test_passes_are_those_that_a_search_makes(name: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where the network meets its batch: with a gradient to come (training), or without (evaluation). α moves, unless the method
    says it does not."""
    samples = {True: 0, False: 0}
    step, score = ImageClassifier.training_step, DifferentiableModule.score_on
    recipe = small(images, search__settings__proxyless={'weight_steps': 1})

    def trained(self: ImageClassifier, batch: tuple, index: int) -> torch.Tensor:
        samples[torch.is_grad_enabled()] += len(batch[1])
        return step(self, batch, index)

    def scored(self: DifferentiableModule, batch: tuple, *rest: Any) -> torch.Tensor:
        samples[False] += len(batch[1])
        return score(self, batch, *rest)

    monkeypatch.setattr(ImageClassifier, 'training_step', trained)
    monkeypatch.setattr(DifferentiableModule, 'score_on', scored)
    genotype, result = running.search(recipe, name, 1, tmp_path)
    # The first batch of each epoch, which oles does not compare, counts as if it did.
    more = 2 * 16 if name == 'oles' else 0
    assert result['passes'] == pytest.approx((more + samples[True] + samples[False] / 3) / 96, abs=1e-3)
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    moved = lines[0]['probabilities'] != lines[1]['probabilities']
    assert moved == (name not in ('fixed-alpha', 'random-ws')) and genotype.nodes == 1


def bought(recipe: Recipe, name: str) -> str:
    (line,) = costs.preflight(recipe, [name], task_of(recipe).load(recipe))
    return line


@pytest.mark.parametrize('name', [*SUPERNETS, 'darts-pt', 'sgas+pt'])
@pytest.mark.parametrize('passes', [20, 33.3])
def test_a_search_spends_its_budget_and_not_more(name: str, passes: float, images: Path) -> None:
    recipe = small(images, budget={'passes': passes})
    fitted, line = costs.checked_recipe(recipe, name, task_of(recipe).load(recipe)), bought(recipe, name)
    spent = float(line.split(', ')[1].split()[0])
    assert passes - 5.4 < spent <= passes + 1e-3  # an epoch of sdarts-adv takes 5.3
    assert f'{fitted.search.epochs} epochs' in line


def test_every_strategy_says_what_it_gets(images: Path) -> None:
    # One pass an epoch of darts-1st, 2.5 of darts-2nd; the short training of a cell takes 0.7.
    recipe = small(images, budget={'passes': 20}, select__epochs=2)
    assert training_passes(recipe, 'select') == pytest.approx(1.4)
    assert bought(recipe, 'darts-1st') == 'darts-1st: 18 epochs of search, 19.4 passes with the short training of its cell'
    assert bought(recipe, 'darts-2nd') == 'darts-2nd: 7 epochs of search, 18.9 passes with the short training of its cell'
    assert bought(recipe, 'fixed-alpha') == 'fixed-alpha: 37 epochs of search, 19.9 passes with the short training of its cell'
    assert bought(recipe, 'random') == 'random: 14 cells, 19.6 passes'
    assert bought(recipe, 'evolution') == 'evolution: 14 cells, 19.6 passes'
    # pc-darts: no α in the first 30 % of 20 epochs; two edges of seven operations each for each kind of cell and one epoch of tuning.
    assert bought(recipe, 'pc-darts').startswith('pc-darts: 22 epochs')
    assert bought(recipe, 'darts-1st+pt').startswith('darts-1st+pt: 12 epochs of search and 1 of tuning')


def test_text_has_validation_text_of_its_own(tmp_path: Path) -> None:
    recipe = Recipe.load('pydoc', {**text_overrides(write_text(tmp_path)), 'budget.passes': 9})
    assert bought(recipe, 'darts-1st') == 'darts-1st: 4 epochs of search, 9 passes with the short training of its cell'
    assert bought(recipe, 'random') == 'random: 9 cells, 9 passes'


def test_the_same_search_as_with_so_many_epochs(images: Path, tmp_path: Path) -> None:
    recipe = small(images, budget={'passes': 3.8})
    found, result = running.search(recipe, 'darts-1st', 1, tmp_path / 'budget')
    expected, _ = running.search(small(images, search__epochs=3), 'darts-1st', 1, tmp_path / 'epochs')
    assert found == expected and result['passes'] == 3
    assert running.search(recipe, 'darts-1st', 1, tmp_path / 'budget', resume=True) == (found, result)


@pytest.mark.parametrize('name', ['random', 'evolution'])
def test_cells_within_the_budget(name: str, images: Path, tmp_path: Path) -> None:
    recipe = small(images, budget={'passes': 2.2})
    _, result = running.search(recipe, name, 1, tmp_path)
    assert result['passes'] == pytest.approx(2.1)
    assert len(list(tmp_path.glob('cell-*'))) == number_of_cells(recipe, name) == 3


@pytest.mark.parametrize(
    ('name', 'budget', 'names'),
    [
        ('random', 0.5, 'a budget of 0.5 passes is too small for random: the short training of one cell takes 0.7'),
        ('evolution', 1.5, 'a budget of 1.5 passes pays for 2 cells; cells must be more than population'),
        ('darts-2nd', 3, 'too small for darts-2nd: a search of 1 epoch takes 2.5, the short training of its cell 0.7'),
        ('darts-pt', 5, 'too small for darts-pt'),
    ],
)
def test_too_small_a_budget_is_one_sentence(name: str, budget: float, names: str, images: Path, tmp_path: Path) -> None:
    recipe = small(images, budget={'passes': budget})
    with pytest.raises(InputError, match=names) as error:
        running.search(recipe, name, 1, tmp_path)
    assert '\n' not in str(error.value)
    if name in ('random', 'evolution'):
        with pytest.raises(InputError, match=names):
            Protocol(recipe, (name,), (1,))


def test_a_warm_up_in_epochs_must_be_paid_for(images: Path) -> None:
    recipe = small(images, search__epochs=10, search__warmup_epochs=6, budget={'passes': 4})
    with pytest.raises(InputError, match='a search of 7 epochs takes 4, '):
        costs.preflight(recipe, ['darts-1st'], task_of(recipe).load(recipe))


def test_of_a_search_that_was_stopped_early_the_epochs_that_it_had_count() -> None:
    strategy = create_strategy('pc-darts')
    assert strategy.passes(10) == 10 + 7
    strategy.architecture.state.stopped = {'after': 6}
    assert strategy.passes(10) == 6 + 3


@pytest.mark.parametrize('least', [1, 4])
def test_as_many_epochs_as_can_be_paid_for(images: Path, least: int) -> None:
    recipe = small(images, budget={'passes': 30.7})
    for cost in (lambda epochs: epochs, lambda epochs: 5 + epochs // 2 * 1.5, lambda epochs: 7.5 * epochs):
        epochs = affordable_epochs(recipe, 'x', cost, least)
        assert cost(epochs) <= 30 < cost(epochs + 1)


@pytest.mark.parametrize('override', ['budget.passes=0', 'budget.passes=-1', 'budget=3', 'budget.epochs=3', 'budget.passes=many'])
def test_impossible_budgets(override: str) -> None:
    with pytest.raises(InputError, match='budget'):
        Recipe.load('digits', [override])
