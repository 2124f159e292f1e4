"""Successive halving: rungs, costs and promotions, computed by hand and against a slow simulation."""

from __future__ import annotations

import random

import pytest

from nni_darts.strategies.trained.halving import Halving, Training


@pytest.mark.parametrize(
    ('eta', 'least', 'most', 'rungs'),
    [(3, 1, 9, (1, 3, 9)), (3, 1, 12, (1, 3, 9, 12)), (2, 2, 7, (2, 4, 7)), (4, 1, 4, (1, 4)), (5, 3, 4, (3, 4))],
)
def test_rungs_grow_by_eta_up_to_the_whole_training(eta: int, least: int, most: int, rungs: tuple[int, ...]) -> None:
    assert Halving.of(eta, least, most).rungs == rungs


def test_the_cost_by_hand() -> None:
    """27 cells for 1 epoch, 9 of them for 2 more, 3 for 6 more, 1 for 18 more: 27 + 18 + 18 + 18."""
    halving = Halving.of(3, 1, 27)
    assert halving.counts(27) == (27, 9, 3, 1) and halving.epochs(27) == 81
    assert halving.counts(2) == (2, 1, 1, 1) and halving.epochs(2) == 2 + 2 + 6 + 18
    assert Halving.of(3, 1, 9).counts(8) == (8, 2, 1) and Halving.of(3, 1, 9).epochs(8) == 8 + 2 * 2 + 6


def test_the_best_third_of_a_rung_is_promoted_when_all_are_trained() -> None:
    halving, scores = Halving.of(3, 1, 9), {(number, 0): value for number, value in enumerate([0.3, 0.9, 0.5, 0.7, 0.1, 0.2], start=1)}
    assert halving.entrants(6, scores, closed=True, together=True) == [[1, 2, 3, 4, 5, 6], [2, 4], []]
    last = scores.pop((5, 0))
    assert halving.entrants(6, scores, closed=True, together=True) == [[1, 2, 3, 4, 5, 6], [], []]
    scores |= {(5, 0): last, (2, 1): 0.6, (4, 1): 0.8}
    assert halving.entrants(6, scores, closed=True, together=True) == [[1, 2, 3, 4, 5, 6], [2, 4], [4]]
    assert halving.trainings(6, scores, closed=True, together=True)[-3:] == [Training(2, 1), Training(4, 1), Training(4, 2)]


def test_one_by_one_every_third_cell_promotes_the_best_so_far() -> None:
    halving = Halving.of(3, 1, 9)
    scores = {(number, 0): value for number, value in enumerate([0.3, 0.9, 0.5, 0.7, 0.1], start=1)}
    assert halving.entrants(5, scores, closed=False, together=False) == [[1, 2, 3, 4, 5], [2], []]
    scores[6, 0] = 0.2
    assert halving.entrants(6, scores, closed=False, together=False) == [[1, 2, 3, 4, 5, 6], [2, 4], []]
    scores |= {(7, 0): 0.4, (8, 0): 0.45, (9, 0): 0.4}
    assert halving.entrants(9, scores, closed=False, together=False)[1] == [2, 4, 3]  # 0.5 is the best of those that are left
    scores |= {(2, 1): 0.6, (4, 1): 0.8, (3, 1): 0.95}
    assert halving.entrants(9, scores, closed=False, together=False)[2] == [3]


def test_if_too_few_cells_come_the_best_is_promoted_at_the_end() -> None:
    halving = Halving.of(3, 1, 9)
    scores = {(1, 0): 0.3, (2, 0): 0.9}
    assert halving.entrants(2, scores, closed=False, together=False) == [[1, 2], [], []]
    assert halving.entrants(2, scores, closed=True, together=False) == [[1, 2], [2], []]
    assert halving.entrants(2, {**scores, (2, 1): 0.1}, closed=True, together=False) == [[1, 2], [2], [2]]


@pytest.mark.parametrize('together', [True, False])
def test_a_training_without_a_result_is_not_promoted(together: bool) -> None:
    halving = Halving.of(2, 1, 4)
    scores = {(1, 0): None, (2, 0): 0.1, (3, 0): None, (4, 0): None}
    assert halving.entrants(4, scores, closed=True, together=together)[:2] == [[1, 2, 3, 4], [2]]
    assert halving.entrants(4, {**scores, (2, 1): None}, closed=True, together=together) == [[1, 2, 3, 4], [2], []]
    nothing = {(number, 0): None for number in range(1, 5)}
    assert halving.entrants(4, nothing, closed=True, together=together) == [[1, 2, 3, 4], [], []]


def test_ties_go_to_the_cell_that_came_first() -> None:
    scores = {(number, 0): 0.5 for number in range(1, 5)}
    for together in (True, False):
        assert Halving.of(2, 1, 2).entrants(4, scores, closed=True, together=together)[1] == [1, 2]


@pytest.mark.parametrize('together', [True, False])
@pytest.mark.parametrize('seed', range(20))
def test_the_order_in_which_trainings_end_changes_nothing(seed: int, together: bool) -> None:
    halving, cells = Halving.of(3, 1, 20), 17

    def value(part: Training) -> float | None:
        rng = random.Random(f'{seed} {part}')
        return None if rng.random() < 0.1 else rng.random()

    found = []
    for order in range(3):
        rng, known, scores = random.Random(order), cells if together else 1, {}
        while True:
            parts = halving.trainings(known, scores, closed=known == cells, together=together)
            ready = [part for part in parts if part not in scores]
            if known < cells and (not ready or rng.random() < 0.3):
                known += 1
                continue
            if not ready:
                break
            before = halving.entrants(known, scores, closed=known == cells, together=together)
            part = rng.choice(ready)
            scores[part] = value(part)
            after = halving.entrants(known, scores, closed=known == cells, together=together)
            assert all(later[: len(earlier)] == earlier for earlier, later in zip(before, after))
        found.append(halving.entrants(cells, scores, closed=True, together=together))
    assert found[0] == found[1] == found[2]
    assert all(len(mine) <= count for mine, count in zip(found[0], halving.counts(cells)))
