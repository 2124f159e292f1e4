"""How long an experiment will still take, from what is known (read from a real manager in test_limits)."""

from __future__ import annotations

import pytest

from nni_darts.experiment.outlook import Work, seconds_left

EPOCHS = {'search': 10, 'select': 5, 'retrain': 20}


def work(**changes: object) -> Work:
    known = {'pending': {}, 'taken': {}, 'running': (), 'epochs': EPOCHS, 'concurrency': 1}
    return Work(**{**known, **changes})


def test_nothing_is_known_before_the_first_epoch() -> None:
    assert seconds_left(work(pending={('search', 'a'): 1})) is None
    assert seconds_left(work(running=[(('search', 'a'), 5.0, None)])) is None


def test_nothing_is_left() -> None:
    assert seconds_left(work(taken={('search', 'a'): [10.0]})) == 0


def test_a_job_takes_as_long_as_the_nearest_that_is_known() -> None:
    known = work(taken={('search', 'a'): [10.0, 20.0], ('search', 'b'): [60.0]})
    assert known.cost(('search', 'a')) == 15
    assert known.cost(('search', 'c')) == 30  # the mean of its stage
    assert known.cost(('retrain', 'a')) == 60  # twice as many epochs as a search
    assert work(taken={('search', 'a'): [10.0], ('select', 'a'): [20.0]}).cost(('retrain', 'a')) == 20 * (1 + 4) / 2


def test_work_is_spread_over_the_trials_at_a_time() -> None:
    taken = {('select', 'random'): [10.0]}
    pending = {('select', 'random'): 8}
    assert seconds_left(work(taken=taken, pending=pending)) == 80
    assert seconds_left(work(taken=taken, pending=pending, concurrency=4)) == 20
    assert seconds_left(work(taken=taken, pending=pending, concurrency=100)) == 10  # as long as one of them


def test_the_stages_of_a_strategy_follow_each_other() -> None:
    taken = {('search', 'a'): [100.0], ('select', 'a'): [10.0], ('retrain', 'a'): [50.0]}
    running = [(('search', 'a'), 70.0, 30.0)]
    assert seconds_left(work(taken=taken, running=running, pending={('select', 'a'): 1, ('retrain', 'a'): 1}, concurrency=8)) == 90


@pytest.mark.parametrize(('elapsed', 'expected'), [(30.0, 70.0), (130.0, 0.0)])
def test_a_trial_without_an_epoch_takes_as_long_as_others(elapsed: float, expected: float) -> None:
    assert seconds_left(work(taken={('search', 'a'): [100.0]}, running=[(('search', 'a'), elapsed, None)])) == expected
