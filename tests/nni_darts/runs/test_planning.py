"""A time for a run: what is planned into it, and how a run ends that is slower than planned."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.deadline import Deadline, TimeLimit, TimePlan
from nni_darts.runs.planning import plan_search, plan_training
from nni_darts.runs.weights import read_state_dict
from tests.helpers import running
from tests.helpers.stopping import Stop, stop_at
from tests.helpers.tiny import overrides, write_images

ENDLESS = 1e6


class Allowing:
    """A deadline that passes after a number of epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def allows(self, seconds: float) -> bool:
        self.epochs -= 1
        return self.epochs >= 0


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp('data') / 'images.npz')


def tiny(images: Path, **changes: Any) -> Recipe:
    changed = {key.replace('__', '.'): value for key, value in changes.items()}
    return Recipe.load('digits', {**overrides(images), 'space.nodes': 1, 'search.epochs': 3, 'retrain.epochs': 4, **changed})


def lines(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in line.items() if 'seconds' not in key} for line in read]


def test_time_that_is_left() -> None:
    deadline = Deadline(100.0, spent=30.0)
    assert 69 < deadline.left() <= 70 and deadline.allows(60) and not deadline.allows(71)
    # The age of the process, which may be a notebook's, is none of the run's time.
    assert 99 < TimePlan(100.0, 1, 1, 1.0).deadline(0.0).left() <= 100
    assert 59 < TimePlan(100.0, 1, 1, 1.0, begun=time.time() - 30.0).deadline(10.0).left() <= 60


def test_plans_are_for_no_more_than_the_recipe_asks_for(images: Path) -> None:
    recipe = tiny(images)
    cell = recipe.random_cells(1)[0]
    for plan in (
        plan_search(recipe, 'darts-1st', ENDLESS),
        plan_training(recipe, 'retrain', cell, ENDLESS),
        plan_search(recipe, 'random', ENDLESS),
    ):
        assert plan.count == plan.of and 0 < plan.seconds < ENDLESS
    with pytest.raises(InputError, match=r'--time 1 s is too short for a search with darts-1st: 1 epoch and the remaining work take about'):
        plan_search(recipe, 'darts-1st', 1.0)
    with pytest.raises(InputError, match=r'too short for a training \(retrain\)'):
        plan_training(recipe, 'retrain', cell, 1.0)
    with pytest.raises(InputError, match='cannot be combined with a budget'):
        plan_search(tiny(images, budget__passes=20.0), 'darts-1st', ENDLESS)


def test_as_many_epochs_as_fit(images: Path) -> None:
    """Between the fewest and the most, by what they are said to cost."""
    from nni_darts.runs import planning

    begun = time.time() - 40.0
    spent = planning._planned(lambda epochs: 0.0, ENDLESS, begun, (1, 1), '', 'epoch').seconds
    assert 40 <= spent < 41
    for seconds in (50.0, 199.0, 500.0):
        limit = (spent + 5.0 + seconds) / 0.9
        plan = planning._planned(lambda epochs: 10.0 * epochs, limit, begun, (1, 30), 'a search', 'epoch')
        assert plan.count == min(30, int(seconds // 10 + (5.0 + seconds % 10 >= 10))) and plan.of == 30


@pytest.mark.parametrize('strategy', ['darts-1st', 'random', 'evolution'])
def test_a_planned_search_keeps_its_plan_when_it_is_resumed(strategy: str, images: Path, tmp_path: Path) -> None:
    recipe = tiny(images)
    count, of = (2, 3) if strategy == 'darts-1st' else (1, 2) if strategy == 'random' else (3, 4)
    plan = TimePlan(ENDLESS, count, of, 10.0)
    with pytest.raises(Stop):
        running.search(recipe, strategy, 1, tmp_path, plan=plan, on_epoch=stop_at(1))
    assert TimeLimit(tmp_path, True).kept() == plan and TimeLimit(tmp_path, True, ENDLESS).kept() == plan
    assert TimeLimit(tmp_path, False).kept() is None
    with pytest.raises(InputError, match='leave out --time'):
        TimeLimit(tmp_path, True, 60.0).kept()
    said: list[str] = []
    _, result = running.search(recipe, strategy, 1, tmp_path, resume=True, on_start=lambda line, warnings: said.append(line))
    assert f'planned: {count} of {of}' in said[0] and 'ended' not in result
    trained = lines(tmp_path) if strategy == 'darts-1st' else sorted(tmp_path.glob('cell-*'))
    assert len(trained) == count
    written = json.loads((tmp_path / 'result.json').read_text())
    assert written['plan'] == plan.to_dict() and Recipe.from_dict(written['recipe']) == recipe


def test_a_training_that_is_too_slow_ends_with_a_result(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(images)
    cell = recipe.random_cells(1)[0]
    late = TimePlan(1.0, 4, 4, 1.0, begun=time.time() - 1.0)
    result = running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'late', plan=late)
    assert (result['epochs'], result['ended'], len(lines(tmp_path / 'late'))) == (1, 'time', 1)
    assert lines(tmp_path / 'late')[0]['of'] == 1 and 'test_accuracy' in result
    # Interrupted before or after its last epoch, it ends the same.
    monkeypatch.setattr(TimePlan, 'deadline', lambda self, before: Allowing(2))
    expected = running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'whole', plan=TimePlan(5.0, 4, 4, 5.0))
    assert (expected['epochs'], expected['ended']) == (3, 'time')
    with pytest.raises(Stop):
        running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'broken', plan=TimePlan(5.0, 4, 4, 5.0), on_epoch=stop_at(3))
    monkeypatch.setattr(TimePlan, 'deadline', lambda self, before: Allowing(0))
    again = running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'broken', resume=True)
    (tmp_path / 'whole' / 'result.json').unlink()
    monkeypatch.setattr(TimePlan, 'deadline', lambda self, before: Allowing(9))
    repeated = running.train_cell(recipe, 'retrain', cell, 1, tmp_path / 'whole', resume=True)
    for found in (again, repeated):
        assert (found['epochs'], found['ended'], found['test_accuracy']) == (3, 'time', expected['test_accuracy'])
    one, other = (read_state_dict(tmp_path / name / 'weights.pt') for name in ('whole', 'broken'))
    assert all(torch.equal(one[name], other[name]) for name in one) and lines(tmp_path / 'whole') == lines(tmp_path / 'broken')


def test_a_search_that_is_too_slow_ends_with_a_cell(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(images)
    monkeypatch.setattr(TimePlan, 'deadline', lambda self, before: Allowing(1))
    cell, result = running.search(recipe, 'darts-1st', 1, tmp_path / 'whole', plan=TimePlan(5.0, 3, 3, 5.0))
    assert (result['epochs'], result['ended'], len(lines(tmp_path / 'whole'))) == (2, 'time', 2)
    assert result['passes'] == pytest.approx(2 / 3 * 3 * 0.5 * 2, abs=0.01)
    (tmp_path / 'whole' / 'result.json').unlink()
    monkeypatch.setattr(TimePlan, 'deadline', lambda self, before: Allowing(9))
    again, repeated = running.search(recipe, 'darts-1st', 1, tmp_path / 'whole', resume=True)
    assert again == cell and (repeated['epochs'], repeated['ended'], repeated['passes']) == (2, 'time', result['passes'])


@pytest.mark.parametrize(('allowed', 'searched', 'trained'), [(0, 1, 2), (1, 2, 3), (3, 2, 4), (99, 2, None)])
def test_a_selection_that_fine_tunes_follows_or_is_cut_short(
    allowed: int, searched: int, trained: int | None, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of search, then one after each event of decisions."""
    recipe = tiny(images, search__epochs=2, space__nodes=2, search__settings={'darts-pt': {'batches': 1}})
    monkeypatch.setattr(TimePlan, 'deadline', lambda self, before: Allowing(allowed))
    cell, result = running.search(recipe, 'darts-pt', 1, tmp_path, plan=TimePlan(5.0, 2, 2, 5.0))
    found = lines(tmp_path)
    assert result.get('epochs') == trained and found[-1]['epoch'] == found[-1]['of'] == len(found)
    assert [epoch['decisions'] > 0 for epoch in found].index(True) == searched - 1
    # What was not decided is what α says.
    assert (found[-1]['decisions'] == found[-1]['of_decisions']) == (trained is None)
    assert found[-1]['genotype'] == json.loads(cell.to_json())


def test_fewer_cells_where_they_take_too_long(images: Path, tmp_path: Path) -> None:
    recipe = tiny(images)
    _, result = running.search(recipe, 'random', 1, tmp_path, plan=TimePlan(1.0, 2, 2, 1.0, begun=time.time() - 1.0))
    assert (result['cells'], result['ended']) == (1, 'time') and not (tmp_path / 'cell-1').exists()
