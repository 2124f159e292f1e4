"""Rankings by a proxy: the best of the cells that random search draws, in every space, under limits, resumed, and paid for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nni_darts.activity import Activity, watched
from nni_darts.errors import InputError
from nni_darts.genotypes import genotype_from_code, genotype_from_text
from nni_darts.recipes import Recipe
from nni_darts.runs import costs
from nni_darts.runs.cells import number_of_cells, on_data, prior_of, ranking_passes
from nni_darts.runs.planning import course_of_search, plan_search
from nni_darts.runs.ranking import score_cells, scoring_batch
from nni_darts.runs.run import Run
from nni_darts.runs.spec import RunSpec
from nni_darts.runs.tasks import task_of
from tests.helpers import running, tiny
from tests.helpers.stopping import Stop

DRAW, BATCH = 7, 16
PRIOR = {'proxy': 'naswot', 'draw': DRAW, 'batch_size': BATCH}


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def ranking(images: Path, proxy: str = 'naswot', **changes: Any) -> Recipe:
    """The tiny recipe, in which all strategies begin with a ranking."""
    prior = {**PRIOR, 'proxy': proxy}
    settings = {'proxy': dict(prior), 'random': {'prior': prior}, 'evolution': {**tiny.EVOLUTION, 'prior': prior}}
    given = {name: value for name, value in changes.items() if name != 'space'}
    space = {'space': changes['space']} if 'space' in changes else {}
    return Recipe.load('digits', {**tiny.overrides(images), **space, 'search.settings': settings, **given})


def by_hand(recipe: Recipe, seed: int = 1) -> list[Any]:
    """The different cells that random search draws first, best first."""
    cells = list(dict.fromkeys(on_data(recipe).random_cells(seed, DRAW)))
    prior = prior_of(recipe, 'proxy')
    assert prior is not None
    data = task_of(recipe).load(recipe)
    scores = [next(score_cells(recipe, data, [cell], prior, seed)) for cell in cells]  # each by itself: no score depends on the others
    return [cell for _, cell in sorted(zip(scores, cells), key=lambda pair: -pair[0])]


def trained(folder: Path) -> list[Any]:
    count = len(list(folder.glob('cell-*')))
    return [genotype_from_text((folder / f'cell-{at}' / 'genotype.json').read_text()) for at in range(count)]


@pytest.mark.parametrize('space', [None, {'name': 's2', 'channels': 2, 'cells': 3}, {'name': 'nasbench201', 'channels': 2, 'cells': 3}])
@pytest.mark.parametrize('proxy', ['naswot', 'parameters', 'synflow'])
def test_proxy_keeps_the_best_of_the_cells_that_random_search_draws(
    proxy: str, space: dict[str, Any] | None, images: Path, tmp_path: Path
) -> None:
    recipe = ranking(images, proxy, **({'space': space} if space else {}))
    genotype, result = running.search(recipe, 'proxy', 1, tmp_path)
    expected = by_hand(recipe)
    assert genotype == expected[0] and not list(tmp_path.glob('cell-*')) and 'valid_accuracy' not in result
    assert result['drawn'] == len(expected) and result['proxy'] == proxy
    assert running.search(recipe, 'proxy', 1, tmp_path, resume=True) == (genotype, result)
    if proxy == 'parameters' and space is None:
        shape = task_of(recipe).shape(recipe)
        sizes = [costs.cost_of(cell, recipe, shape, 'select')['parameters'] for cell in expected]
        assert sizes == sorted(sizes, reverse=True) and result['score'] == sizes[0]


def test_random_trains_the_best_and_evolution_begins_with_them(images: Path, tmp_path: Path) -> None:
    recipe = ranking(images, **{'search.random_samples': 3})
    best = by_hand(recipe)
    for strategy, first in (('random', 3), ('evolution', tiny.EVOLUTION['population'])):
        _, result = running.search(recipe, strategy, 1, tmp_path / strategy)
        cells = trained(tmp_path / strategy)
        assert cells[:first] == best[:first] and len(cells) == number_of_cells(recipe, strategy)
        records = [json.loads((tmp_path / strategy / f'cell-{at}' / 'result.json').read_text())['result'] for at in range(len(cells))]
        assert result['valid_accuracy'] == max(record['valid_accuracy'] for record in records)
        assert result['passes'] == pytest.approx(sum(record['passes'] for record in records) + DRAW * BATCH / 96, abs=2e-3)


def test_proxy_trains_as_many_of_the_best_as_asked(images: Path, tmp_path: Path) -> None:
    recipe = ranking(images, **{'search.settings.proxy': {**PRIOR, 'cells': 2}})
    _, result = running.search(recipe, 'proxy', 1, tmp_path)
    assert trained(tmp_path) == by_hand(recipe)[:2] and 'valid_accuracy' in result


def test_an_interrupted_ranking_continues(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('nni_darts.runs.ranking._SAVED_EVERY', 0.0)
    recipe, scored = ranking(images), []

    def stop_at_the_fourth(activity: Activity) -> None:
        if activity.what == 'ranking':
            scored.append(activity.done)
            if len(scored) == 4:
                raise Stop

    whole = running.search(recipe, 'proxy', 1, tmp_path / 'whole')
    with watched(stop_at_the_fourth), pytest.raises(Stop):
        running.search(recipe, 'proxy', 1, tmp_path / 'broken')
    kept = json.loads((tmp_path / 'broken' / 'ranking.json').read_text())['scores']
    with watched(lambda activity: scored.append(activity.done) if activity.what == 'ranking' else None):
        resumed = running.search(recipe, 'proxy', 1, tmp_path / 'broken', resume=True)
    assert len(kept) == 3 and len(scored) == 4 + whole[1]['drawn'] - 3
    assert resumed[0] == whole[0] and resumed[1]['score'] == whole[1]['score']
    scores = [json.loads((tmp_path / name / 'ranking.json').read_text())['scores'] for name in ('whole', 'broken')]
    assert scores[0] == scores[1]


def test_cells_are_drawn_below_the_limits(images: Path, tmp_path: Path) -> None:
    whole = ranking(images, 'parameters')
    shape = task_of(whole).shape(whole)
    sizes = sorted(costs.cost_of(cell, whole, shape)['parameters'] for cell in on_data(whole).random_cells(1, 20))
    recipe = ranking(images, 'parameters', **{'limits.parameters': sizes[5]})
    genotype, result = running.search(recipe, 'proxy', 1, tmp_path)
    scored = json.loads((tmp_path / 'ranking.json').read_text())['scores']
    assert all(costs.cost_of(genotype_from_code(code), recipe, shape)['parameters'] <= sizes[5] for code in scored)
    assert result['parameters'] <= sizes[5] < sizes[-1]


def test_only_the_ranking_is_the_work_of_a_search_trial(images: Path, tmp_path: Path) -> None:
    recipe = ranking(images, **{'search.random_samples': 3})
    run = Run(RunSpec.search(recipe, 'random', 1), tmp_path)
    outcome = run.rank()
    assert outcome.result['ranked'].split() == [cell.code() for cell in by_hand(recipe)[:3]]
    assert outcome.genotype == by_hand(recipe)[0] and not list(tmp_path.glob('cell-*'))
    assert run.rank(resume=True) == outcome


def test_the_batch_is_seeded_and_not_augmented(images: Path) -> None:
    recipe = ranking(images, **{'data.augment': 'crop', 'data.pad': 2})
    data = task_of(recipe).load(recipe)
    one, same, other = (scoring_batch(recipe, data, seed, BATCH) for seed in (1, 1, 2))
    assert one.images.shape == (BATCH, 1, 8, 8) and one.labels.shape == (BATCH,)
    assert one.images.equal(same.images) and not one.images.equal(other.images)
    scaled = {tuple(((image.float() / 255 - data.mean[0]) / data.std[0]).flatten().tolist()) for image, _ in data.train}
    rounded = {tuple(round(value, 4) for value in image) for image in scaled}
    assert all(tuple(round(value, 4) for value in image.flatten().tolist()) in rounded for image in one.images)


@pytest.mark.parametrize(
    ('proxy', 'passes'),
    [('snip', 7 * 16 / 96), ('naswot', 7 * 16 / 96), ('zen', 7 * 16 / 96 * 2 / 3), ('synflow', 7 / 96), ('parameters', 0.0)],
)
def test_a_budget_pays_for_the_ranking_first(proxy: str, passes: float, images: Path) -> None:
    recipe = ranking(images, proxy, **{'budget.passes': 3.0})
    prior = prior_of(recipe, 'random')
    assert prior is not None and ranking_passes(recipe, prior) == pytest.approx(passes)
    each = 0.7  # one epoch on 70 % of the images
    assert number_of_cells(recipe, 'random') == math.floor((3.0 - passes) / each + 1e-9)
    assert number_of_cells(recipe, 'proxy') == 1  # it spends no more than it needs
    (said,) = costs.preflight(recipe, ['random'], task_of(recipe).load(recipe))
    total = passes + number_of_cells(recipe, 'random') * each
    assert said.endswith(f'{total:.4g} passes with the ranking of 7 cells by {proxy}')


@pytest.mark.parametrize('strategy', ['random', 'proxy'])
def test_a_budget_that_the_ranking_uses_up_is_one_sentence(strategy: str, images: Path, tmp_path: Path) -> None:
    prior = {**PRIOR, 'proxy': 'snip'}
    settings = {'search.settings': {strategy: prior if strategy == 'proxy' else {'prior': prior}}}
    recipe = ranking(images, **settings, **{'budget.passes': 1.5})
    with pytest.raises(
        InputError, match=f'too small for {strategy}: the short training of one cell takes 0.7, its ranking before it 1.167'
    ):
        running.search(recipe, strategy, 1, tmp_path)


def test_text_has_no_images_to_score_on(tmp_path: Path) -> None:
    folder = tiny.write_text(tmp_path)
    settings = {'search.settings': {'random': {'prior': PRIOR}}}
    for strategy, changes in (('proxy', {}), ('random', settings)):
        recipe = Recipe.load('pydoc', {**tiny.text_overrides(folder), **changes})
        with pytest.raises(InputError, match=f'{strategy}: proxies score networks on images, and the recipe pydoc is for text'):
            running.search(recipe, strategy, 1, tmp_path / strategy)
    assert not (tmp_path / 'proxy').exists()


def test_a_time_limit_plans_for_the_ranking(images: Path) -> None:
    recipe = ranking(images)
    course = course_of_search(recipe, 'random')
    assert course.seconds(1) == course.seconds(100) > 0
    with pytest.raises(InputError, match='too short for a search with proxy'):
        plan_search(ranking(images, **{'search.settings.proxy': {'draw': 100_000, 'proxy': 'snip'}}), 'proxy', 60.0)
