"""Epochs that fit into the time of an experiment: by hand where that can be done, else against a slow simulation of the tuner."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from nni_darts.errors import InputError
from nni_darts.experiment.arguments import EACH_SEED
from nni_darts.experiment.protocol import Protocol
from nni_darts.experiment.timetable import OVERHEAD, Timetable, epochs_within, kinds_to_time, makespan, retraining_within
from nni_darts.recipes import Recipe
from nni_darts.runs.planning import Course

RECIPE = Recipe.load('digits', {'search.epochs': 50, 'select.epochs': 20, 'retrain.epochs': 100, 'search.random_samples': 4})


def course(each: float, start: float = 5.0, least: int = 1, most: int = 50) -> Course:
    return Course(least, most, start + each * least, start + each * most)


COURSES = {
    ('search', 'darts-1st'): course(10.0),
    ('search', 'darts-2nd'): course(30.0, least=3),
    ('select', ''): course(4.0, most=20),
    ('retrain', ''): course(6.0, most=100),
}


def simulated(protocol: Protocol, seconds: dict[tuple[str, str], float], concurrency: int) -> float:
    """The tuner itself, with results that come at their time."""
    results: dict[str, dict[str, object]] = {}
    running: dict[str, float] = {}
    arch = protocol.recipe.random_cells(1, 1)[0].code()
    now = 0.0
    while True:
        for key in [key for key, end in running.items() if end <= now]:
            results[key] = {'default': 0.5, 'arch': arch}
            del running[key]
        ready = [job for job in protocol.jobs(results, ()) if job.key not in results and job.key not in running]
        for job in ready[: concurrency - len(running)]:
            running[job.key] = now + seconds[job.stage, job.strategy]
        if not running:
            return now
        now = min(running.values())


def test_makespan_by_hand() -> None:
    one = {('search', 'a'): 1, ('select', 'a'): 1, ('retrain', 'a'): 3}
    seconds = {('search', 'a'): 10.0, ('select', 'a'): 5.0, ('retrain', 'a'): 20.0}
    assert makespan(one, seconds, 1) == 75 and makespan(one, seconds, 2) == 55 and makespan(one, seconds, 9) == 35
    assert makespan({}, {}, 2) == 0 and makespan({}, {}, 2, [3.0]) == 3
    assert makespan({('retrain', 'a'): 1}, seconds, 2, [30.0, 8.0]) == 30
    assert makespan({('retrain', 'a'): 1}, seconds, 2, [30.0, 18.0]) == 38


def test_makespan_is_that_of_the_tuner() -> None:
    rng = random.Random(1)
    for _ in range(30):
        strategies = tuple(rng.sample(['darts-1st', 'darts-2nd', 'random', 'gdas'], rng.randint(1, 3)))
        settings = {'retrain': EACH_SEED} if rng.random() < 0.5 else {'retrain_runs': rng.randint(1, 3)}
        protocol = Protocol(RECIPE, strategies, tuple(range(1, rng.randint(2, 4))), **settings)
        expected = protocol.expected()
        seconds = {kind: float(rng.randint(5, 60)) for kind in expected}
        for concurrency in (1, 2, 3):
            found, exact = makespan(expected, seconds, concurrency), simulated(protocol, seconds, concurrency)
            # Which seed's retraining may begin first is not followed: a retraining waits here for all seeds.
            assert found == exact if settings.get('retrain') != EACH_SEED else 0.99 * exact <= found <= 1.5 * exact


@pytest.mark.parametrize('concurrency', [1, 2, 5])
def test_all_stages_get_the_same_portion_and_as_much_as_fits(concurrency: int) -> None:
    protocol = Protocol(RECIPE, ('darts-1st', 'darts-2nd', 'random'), (1, 2))
    most = makespan(protocol.expected(), whole(protocol), concurrency)
    before = 0
    for part in (0.2, 0.5, 0.9):
        found = epochs_within(protocol, COURSES, concurrency, seconds=part * most, limit=most, where='time')
        assert found.seconds <= part * most
        assert abs(found.search / 50 - found.retrain / 100) <= 0.02 and abs(found.select / 20 - found.retrain / 100) <= 0.06
        assert found.retrain > before
        before = found.retrain
        if part > 0.3:
            assert found.seconds >= 0.9 * part * most
    everything = epochs_within(protocol, COURSES, concurrency, seconds=most, limit=2 * most, where='time')
    assert everything == Timetable(50, 20, 100, most)
    assert everything.applied(RECIPE) == RECIPE and everything.sentence(RECIPE, 2 * most).startswith('All epochs of the recipe fit into')


def whole(protocol: Protocol) -> dict[tuple[str, str], float]:
    """Seconds of each kind with all epochs."""
    epochs = {'search': 50, 'select': 20, 'retrain': 100}
    return {
        (stage, strategy): OVERHEAD + COURSES[stage, strategy if stage == 'search' else ''].seconds(epochs[stage])
        for stage, strategy in protocol.expected()
    }


def test_too_little_time_is_refused_with_what_it_takes() -> None:
    protocol = Protocol(RECIPE, ('darts-1st', 'darts-2nd'), (1,))
    with pytest.raises(InputError, match='classArgs.time: 60 s is too short for this experiment: with the fewest epochs it takes about'):
        epochs_within(protocol, COURSES, 1, seconds=50, limit=60, where='classArgs.time')
    needed = 2 * (13 + 8 + 8 + 5 + 5 + 5) + 10 + 90 + 8 + 12 + 100  # generous: every run with its fewest epochs
    found = epochs_within(protocol, COURSES, 1, seconds=needed, limit=1000, where='classArgs.time')
    assert found.search >= 3 and found.retrain >= 1


def test_the_sentence_says_what_was_planned() -> None:
    said = Timetable(8, 3, 40, 3600.0).sentence(RECIPE, 7200.0, spent=1800.0)
    assert said == (
        'Planned for 2 h 00: 8 of 50 epochs of each search, 3 of 20 epochs of each short training, 40 of 100 epochs of each retraining; '
        'about 90 min in all.'
    )


def test_retraining_takes_what_is_left() -> None:
    recipe = RECIPE.with_epochs('search', 8).with_epochs('select', 3)
    left = Counter({('select', 'random'): 1, ('retrain', 'darts-1st'): 1, ('retrain', 'random'): 1})
    found = retraining_within(recipe, left, COURSES, [20.0], 2, 300.0)
    assert (found.search, found.select) == (8, 3) and 250 < found.seconds <= 300
    longer = retraining_within(recipe, left, {**COURSES, ('retrain', ''): course(12.0, most=100)}, [20.0], 2, 300.0)
    assert longer.retrain < found.retrain
    assert retraining_within(recipe, left, COURSES, [20.0], 2, 1.0).retrain == 1
    assert retraining_within(recipe, left, COURSES, [], 2, 1e6).retrain == 100


def test_what_is_timed() -> None:
    protocol = Protocol(Recipe.load('digits'), ('random', 'gdas', 'evolution', 'darts-1st', 'proxy'), (1,))
    assert kinds_to_time(protocol) == [
        ('search', 'gdas'),
        ('search', 'darts-1st'),
        ('search', 'proxy'),
        ('select', ''),
        ('retrain', ''),
    ]
