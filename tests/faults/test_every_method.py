"""Every strategy in every kind of space: kill -9 after a checkpoint, and what is resumed ends as the unbroken search does, bit for bit."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.runs.checks import named_method
from nni_darts.runs.costs import preflight
from nni_darts.runs.tasks import task_of
from nni_darts.strategies.methods import METHODS
from tests.faults.test_kills import CONTEXT, Case, command_of, files, run, stamp, start
from tests.helpers import tiny

pytestmark = pytest.mark.faults

SPACES: dict[str, tuple[bool, dict[str, object]]] = {
    'darts': (False, {'space.channels': 4, 'space.cells': 6}),
    'nasbench201': (False, {'space.channels': 4, 'space.name': 'nasbench201', 'space.nodes': 4, 'space.cells': 3, 'retrain.cells': 3}),
    'recurrent': (True, {}),
}
"""Space → whether its task is text, and changes to the tiny recipe of its task."""

REFUSED = {
    'nasbench201': {'p-darts'},
    'recurrent': {'p-darts', 'pc-darts', 'gaea-pc-darts', 'darts-minus', 'lambda-darts', 'oles', 'darts-plus'},
}
"""Strategies that say in one sentence why they do not search a space."""


def cases() -> list[tuple[str, str]]:
    names = [name for name, method in METHODS.items() if not method.one_by_one]
    names += [f'darts-1st+{suffix}' for suffix in ('pt', 'pt-mag', 'shapley')]
    return [(space, name) for space in SPACES for name in names]


def outcome(space: str, name: str, folder: Path) -> str:
    """Returns ``same``, ``different``, ``unbroken`` if the search ended before it could be killed, or the sentence that refuses it."""
    text, changes = SPACES[space]
    small = {'search.epochs': 2, 'search.tuning_epochs': 1, **({} if text else tiny.SMALL), **changes}
    case = Case(f'{space} {name}', f'search --strategy {name}', text, small)
    settings = tiny.text_overrides(folder) if text else tiny.overrides(folder / 'images.npz')
    try:
        recipe = Recipe.load('pydoc' if text else 'digits', {**settings, **small})
        preflight(recipe, [named_method(name).name], task_of(recipe).load(recipe))
    except InputError as error:
        return str(error)
    CONTEXT.set_forkserver_preload(['nni_darts.cli', 'nni_darts.runs.run', 'tests.faults.test_kills'])
    whole, broken = (folder / part / space / name for part in ('whole', 'broken'))
    for path in (whole, broken):
        path.parent.mkdir(parents=True, exist_ok=True)
    run(command_of(case, folder, whole), whole)
    process = start(command_of(case, folder, broken), broken)
    while not stamp(broken) and process.is_alive():
        time.sleep(0.002)
    killed = process.is_alive()
    process.kill()
    process.join()
    run(command_of(case, folder, broken), broken)
    return ('same' if killed else 'unbroken') if files(broken) == files(whole) else 'different'


def test_every_strategy_resumes_as_the_unbroken_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_images(tmp_path / 'images.npz')
    tiny.write_text(tmp_path)
    listed = cases()
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool:
        found = list(pool.map(outcome, *zip(*listed), [tmp_path] * len(listed)))
    outcomes = dict(zip(listed, found))
    kills = sum(value == 'same' for value in found)
    with capsys.disabled():
        print(f'\n{len(listed)} searches, {kills} killed once and resumed')
        for (space, name), value in outcomes.items():
            if value != 'same':
                print(f'{space:<12} {name:<18} {value}')
    assert 'different' not in found
    refused = {space: {name for (where, name), value in outcomes.items() if where == space and ' ' in value} for space in SPACES}
    assert refused == {'darts': set(), **REFUSED}
    assert kills > 50
