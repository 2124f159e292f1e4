"""Announcements of long work: who hears them, and that everything long makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nni_darts.activity import Activity, announce, counted, under_way, watched
from nni_darts.data.scan import unreadable
from nni_darts.recipes import Recipe
from nni_darts.strategies.fast import kernels
from tests.helpers import running
from tests.helpers.tiny import SMALL, overrides, write_images


def heard(work) -> list[Activity]:
    """Returns the activities that a function announces while it runs."""
    activities: list[Activity] = []
    with watched(activities.append):
        work()
    return activities


def test_listeners_hear_what_is_announced_within_their_blocks() -> None:
    outer, inner = [], []
    announce('nobody hears this')
    with watched(outer.append):
        announce('epochs', 1, 3, lasting=True)
        with watched(inner.append):
            announce('training', 2, 14)
        announce('training', 3, 14)
    assert [activity.done for activity in outer] == [1, 2, 3] and [activity.done for activity in inner] == [2]
    assert outer[0] == Activity('epochs', 1, 3, lasting=True) and not outer[0].over


def test_the_end_of_work_is_announced_however_it_ends() -> None:
    def fails() -> None:
        with pytest.raises(OSError), under_way('reading', seconds=30):
            raise OSError

    begun, ended = heard(fails)
    assert begun == Activity('reading', seconds=30) and not begun.over
    assert ended.over and ended.seconds is None


def test_parts_are_counted_once_they_are_done() -> None:
    def count() -> None:
        assert list(counted('opening', iter('ab'), 2)) == ['a', 'b']

    assert heard(count) == [Activity('opening', done, 2) for done in range(3)]
    assert [activity.of for activity in heard(lambda: list(counted('opening', 'abc')))] == [3] * 4


def test_what_a_listener_raises_ends_the_work() -> None:
    def stop(activity: Activity) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), watched(stop):
        announce('training', 1, 2)


def test_opening_images_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    paths = [str(tmp_path / f'{number}.png') for number in range(3)]
    for path in paths:
        Image.new('RGB', (4, 4)).save(path)
    assert heard(lambda: unreadable(paths)) == [Activity('opening images', done, 3) for done in range(4)]


def test_the_building_of_kernels_is_announced_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'kernels.cpp').write_text('extern "C" int nothing() { return 0; }')
    monkeypatch.setattr(kernels, '_SOURCE', tmp_path / 'kernels.cpp')
    built = tmp_path / 'built' / 'kernels.so'
    there: list[bool] = []

    def build() -> None:
        with watched(lambda activity: there.append(built.exists())):
            kernels._build(['g++'], (), built)

    begun, ended = heard(build)
    assert begun == Activity('building compiled kernels, once per machine', seconds=kernels.BUILD_SECONDS) and ended.over
    assert there == [False, True]


def test_a_search_announces_epochs_batches_scoring_and_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))  # no executor is remembered
    monkeypatch.setenv('NNI_DARTS_KERNELS', 'off')  # nor are there kernels that would have to be built
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), 'space.nodes': 1})
    activities = heard(lambda: running.search(recipe, 'darts-pt', 1, tmp_path / 'out'))
    by_name = {what: [a for a in activities if a.what == what] for what in dict.fromkeys(a.what for a in activities)}
    assert list(by_name)[0] == 'reading the data'
    epochs = by_name['epochs']
    assert epochs[0] == Activity('epochs', 0, 3, lasting=True) and epochs[-1] == Activity('epochs', 3, 3, lasting=True)
    assert [a.done for a in by_name['training']] == [1, 2, 3] * 3 and {a.of for a in by_name['training']} == {3}
    assert {(a.done, a.of) for a in by_name['validation']} == {(1, 3), (2, 3), (3, 3)}
    assert [a.done for a in by_name['decisions']] == [0, 2, 2, 4] and by_name['decisions'][-1].over
    for what, scored in by_name.items():
        if what.startswith('scoring '):
            assert [a.done for a in scored] == list(range(1, scored[-1].of + 1))
    assert sum(what.startswith('scoring ') for what in by_name) == 4
    assert [a.over for a in by_name['timing executors']] == [False, True]


def test_cells_that_are_trained_one_by_one_are_announced(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {**overrides(write_images(tmp_path / 'images.npz')), **SMALL})
    activities = heard(lambda: running.search(recipe, 'random', 1, tmp_path / 'out'))
    assert [(a.done, a.of) for a in activities if a.what == 'cells'] == [(0, 2), (1, 2), (2, 2)]


def test_a_retraining_announces_its_test(tmp_path: Path) -> None:
    recipe = Recipe.load('digits', overrides(write_images(tmp_path / 'images.npz')))
    activities = heard(lambda: running.train_cell(recipe, 'retrain', recipe.random_cells(1, 1)[0], 1, tmp_path / 'out'))
    assert [(a.done, a.of) for a in activities if a.what == 'testing'] == [(1, 3), (2, 3), (3, 3)]
