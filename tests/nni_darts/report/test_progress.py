"""Rows of running jobs and learning curves from what trials have reported."""

from __future__ import annotations

from typing import Any

import pytest

from nni_darts.experiment.protocol import Job
from nni_darts.recipes.metric import ACCURACY, PERPLEXITY
from nni_darts.report.progress import learning_curves, running_jobs, thinned

SEARCH, SELECT, RETRAIN = Job('search', 'darts-pt', 2), Job('select', 'random', 1, 'x', 3), Job('retrain', 'random', 1, 'x')
JOBS = (SEARCH, SELECT, RETRAIN)


def epochs(count: int, of: int, part: str = 'valid', **changes: Any) -> list[dict[str, Any]]:
    return [{'epoch': number, 'of': of, f'{part}_accuracy': number / of, 'seconds': 2.0, **changes} for number in range(1, count + 1)]


def test_running_jobs_say_how_far_they_are_and_how_long_they_still_take() -> None:
    measured = {SEARCH.key: epochs(12, 50, decisions=4, of_decisions=14), RETRAIN.key: epochs(3, 10, 'train')}
    measured[SEARCH.key][-1]['seconds'] = 900.0  # one slow epoch says nothing of the others
    search, select, retrain = running_jobs(JOBS, {job.key for job in JOBS}, measured, ACCURACY)
    assert search == {
        **{'key': 'search darts-pt 2', 'stage': 'search', 'strategy': 'darts-pt', 'seed': 2, 'cell': 0},
        **{'epoch': 12, 'of': 50, 'seconds_left': 76, 'valid': 0.24, 'train': None, 'decisions': 4, 'of_decisions': 14},
    }
    assert (select['cell'], select['epoch'], select['of'], select['seconds_left'], select['valid']) == (3, 0, None, None, None)
    assert (retrain['valid'], retrain['train'], retrain['seconds_left']) == (None, 0.3, 14)
    assert running_jobs(JOBS, {SELECT.key}, measured, ACCURACY) == [select]


def test_curves_are_of_validation_and_of_training_where_nothing_is_held_out() -> None:
    search, retrain = learning_curves(JOBS, {SEARCH.key: epochs(2, 4), RETRAIN.key: epochs(3, 4, 'train')}, ACCURACY)
    assert (search['key'], search['part'], search['points']) == (SEARCH.key, 'valid', [[1, 0.25], [2, 0.5]])
    assert (retrain['part'], retrain['points']) == ('train', [[1, 0.25], [2, 0.5], [3, 0.75]])
    assert learning_curves(JOBS, {SEARCH.key: epochs(2, 4)}, PERPLEXITY) == []


@pytest.mark.parametrize('count', [1, 199, 200, 201, 1000])
def test_long_curves_are_thinned_and_keep_their_ends(count: int) -> None:
    found = thinned(range(count), 200)
    assert len(found) == min(count, 200) and found == sorted(set(found))
    assert (found[0], found[-1]) == (0, count - 1)
