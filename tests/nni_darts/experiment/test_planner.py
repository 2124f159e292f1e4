"""An experiment is planned into its time: real steps are timed in processes of their own, what was planned survives a resume."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nni_darts.errors import InputError
from nni_darts.experiment.arguments import TIME, TIME_ELSEWHERE, TunerArguments
from nni_darts.experiment.ledger import Standing
from nni_darts.experiment.manager import TrialRecord
from nni_darts.experiment.planner import LOG, PLAN, TIMING, Planner, experiment_seconds
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.validate import check_experiment
from nni_darts.recipes import Recipe
from tests.helpers.live import launched, write_experiment
from tests.helpers.tiny import overrides, write_images

SURROUNDINGS = {'gpus': 0, 'trials_per_gpu': 1, 'stall_minutes': 5}


@pytest.fixture(scope='module')
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    images = write_images(tmp_path_factory.mktemp('data') / 'images.npz')
    changes = {**overrides(images), 'search.epochs': 100, 'select.epochs': 50, 'retrain.epochs': 4000}
    return Protocol(Recipe.load('digits', changes), ('darts-1st', 'random'), (1,))


def planner(folder: Path, recipe: Recipe, limit: float, **changes: Any) -> Planner:
    return Planner(folder, recipe, limit, TIME, **{'concurrency': 2, 'surroundings': SURROUNDINGS, **changes})


def timed(planner: Planner, protocol: Protocol, elapsed: float = 0.0) -> Planner:
    """Lets it time its steps."""
    deadline = time.monotonic() + 240
    while planner.timetable is None and time.monotonic() < deadline:
        planner.update(protocol, Standing(), (), elapsed, time.time())
        time.sleep(0.2)
    return planner


def test_steps_are_timed_and_the_plan_is_kept(protocol: Protocol, tmp_path: Path) -> None:
    begun = planner(tmp_path, protocol.recipe, 300.0)
    assert begun.sentence == TIMING and begun.timetable is None
    first = timed(begun, protocol).timetable
    assert first is not None and not begun.settled
    assert first.search < 100 and first.retrain < 4000 and first.seconds <= 270
    assert abs(first.search / 100 - first.retrain / 4000) <= 0.03
    # A tuner that is started again reads it, and times nothing.
    again = planner(tmp_path, protocol.recipe, 300.0)
    again.update(protocol, Standing(), (), 100.0, time.time())
    assert (again.timetable, again.sentence, again.settled) == (first, begun.sentence, False)
    # Once a cell can be retrained, what is left is planned anew, by how long trials took: three times as long as expected.
    arch = protocol.recipe.random_cells(1, 1)[0].code()
    recipe, results = first.applied(protocol.recipe), {}
    plan = json.loads((tmp_path / PLAN).read_text())
    courses = {(stage, strategy): course for stage, strategy, course in plan['courses']}
    assert set(courses) == {('search', 'darts-1st'), ('select', ''), ('retrain', '')}
    records = []
    for job in protocol.jobs({}, ()):
        results[job.key] = {'default': 0.5, 'arch': arch, 'key': job.key}
        parameters = {'key': job.key, 'stage': job.stage, 'strategy': job.strategy}
        took = 3 * courses['select', '']['longest'] if job.stage == 'select' else 3 * courses['search', 'darts-1st']['longest']
        records.append(TrialRecord(job.key, 'SUCCEEDED', parameters, results[job.key], 1000.0, 1000.0 + took))
    again.update(protocol, Standing(results), records, 150.0, time.time())
    assert again.settled and again.timetable is not None
    assert (again.timetable.search, again.timetable.select) == (recipe.search.epochs, recipe.select.epochs)
    assert (
        1 <= again.timetable.retrain < first.retrain
        and again.timetable.retrain == planner(tmp_path, protocol.recipe, 300.0).timetable.retrain
    )  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_time_that_is_too_short(protocol: Protocol, tmp_path: Path) -> None:
    """NNI's own limit shortens nothing then: test_limits.py."""
    with pytest.raises(InputError, match='classArgs.time: 5 s is too short for this experiment: with the fewest epochs it takes about'):
        timed(planner(tmp_path, protocol.recipe, 5.0, concurrency=1), Protocol(protocol.recipe, ('random',), (1,)))
    assert not (tmp_path / PLAN).exists()


def test_data_that_is_not_there_and_a_process_that_dies(protocol: Protocol, tmp_path: Path) -> None:
    recipe = Recipe.load('digits', {'data.name': 'npz', 'data.path': str(tmp_path / 'none.npz')})
    with pytest.raises(InputError, match='classArgs.time: .*none.npz'):
        timed(planner(tmp_path, recipe, 600.0, concurrency=1), Protocol(recipe, ('random',), (1,)))
    dying = planner(tmp_path, protocol.recipe, 600.0, concurrency=1)
    dying.update(protocol, Standing(), (), 0.0, 0.0)
    dying.close()
    with pytest.raises(InputError, match=f'the process that timed steps ended with code -9; {LOG} says why'):
        timed(dying, protocol)


def test_the_processes_end_with_the_tuner(protocol: Protocol, tmp_path: Path) -> None:
    begun = planner(tmp_path, protocol.recipe, 600.0)
    begun.update(protocol, Standing(), (), 0.0, 0.0)
    workers: list[subprocess.Popen[str]] = [worker.process for worker in begun._workers]
    assert len(workers) == 2
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()  # as the kernel does when the tuner is killed
        assert worker.wait(60) == 1


@pytest.mark.parametrize(('value', 'seconds'), [(None, None), ('', None), ('2h', 7200), (90, 90), ('1h30m', 5400)])
def test_limits_of_nni(value: Any, seconds: float | None) -> None:
    assert experiment_seconds(value) == seconds


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'time': 'soon'}, "classArgs.time 'soon' is not a duration: write for example 90s, 20m, 2h or 1h30m"),
        ({'time': '2h', 'set': {'budget.passes': 20}}, 'classArgs.time cannot be combined with a budget'),
    ],
)
def test_wrong_times(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TunerArguments.parse(arguments).load()


def test_time_on_other_machines_is_refused(tmp_path: Path) -> None:
    remote = {'platform': 'remote', 'machineList': [{'host': 'somewhere', 'user': 'me', 'password': 'x'}]}
    path = write_experiment(tmp_path, classArgs={'recipe': 'digits', 'time': '2h'}, trainingService=remote)
    assert TIME_ELSEWHERE in check_experiment(path).errors


@pytest.mark.slow
@pytest.mark.nni
def test_an_experiment_ends_in_its_time(tmp_path: Path, protocol: Protocol) -> None:
    changes = {'data.name': 'npz', 'data.path': protocol.recipe.data.path}
    settings = {**overrides(Path(protocol.recipe.data.path)), **changes, 'search.epochs': 400, 'select.epochs': 100, 'retrain.epochs': 4000}
    space = {'strategy': {'_type': 'choice', '_value': ['darts-1st', 'random']}, 'seed': {'_type': 'choice', '_value': [1]}}
    begun = time.monotonic()
    arguments = {'recipe': 'digits', 'set': settings, 'time': '3m'}
    with launched(tmp_path, searchSpace=space, trialConcurrency=2, classArgs=arguments) as experiment:
        experiment.wait(lambda: experiment.manager.status() == 'DONE', 400)
        took = time.monotonic() - begun
        trials = experiment.trials()
        summary = experiment.manager.document('summary.json')
    assert 0.6 * 180 <= took <= 1.1 * 180, (took, summary['plan'])
    assert summary['plan'].startswith('Planned for 3 min: ') and summary['recipe']['retrain']['epochs'] < 4000
    for stage in ('search', 'select', 'retrain'):
        epochs = {trial.parameters['recipe'][stage]['epochs'] for trial in trials if trial.parameters['stage'] == stage}
        assert len(epochs) == 1, (stage, epochs)
