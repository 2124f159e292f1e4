"""McNemar's exact test against a sum over the binomial distribution by hand, and the verdict as a sentence."""

from __future__ import annotations

import math

import pytest
import torch

from nni_darts.runs.comparison import Comparison
from nni_darts.runs.evaluation import Evaluation


def answers(right: str, labels: tuple[int, ...] | None = None) -> Evaluation:
    """Two classes; a character for each image: 1 where the answer is right."""
    truth = torch.tensor(labels or [index % 2 for index in range(len(right))])
    given = torch.tensor([label if mark == '1' else 1 - label for label, mark in zip(truth.tolist(), right)])
    return Evaluation(('a', 'b'), truth, torch.nn.functional.one_hot(given, 2).float(), tuple(map(str, range(len(right)))))


def by_hand(first: int, second: int) -> float:
    total = first + second
    chances = [math.comb(total, k) / 2**total for k in range(total + 1)]
    return sum(chance for chance in chances if chance <= chances[first] * (1 + 1e-9)) if total else 1.0


@pytest.mark.parametrize(('only_found', 'only_known'), [(0, 0), (5, 5), (1, 9), (9, 1), (0, 6)])
def test_the_p_value_is_the_exact_one(only_found: int, only_known: int) -> None:
    found = answers('1' * 10 + '1' * only_found + '0' * only_known)
    known = answers('1' * 10 + '0' * only_found + '1' * only_known)
    comparison = Comparison(found, known)
    assert (comparison.only_found, comparison.only_known) == (only_found, only_known)
    assert comparison.p_value == pytest.approx(by_hand(only_found, only_known), abs=1e-12)


def test_the_verdict_is_honest() -> None:
    better, worse, chance = (answers('1' * right + '0' * (100 - right)) for right in (100, 80, 50))
    verdict = Comparison(better, worse).sentence('resnet18')
    assert 'the found network is better than resnet18 by 20.0 points' in verdict and verdict.endswith('The search was worth it.')
    assert Comparison(worse, better).sentence('resnet18').endswith('Use resnet18 here, or give the search more time.')
    assert Comparison(chance, better).sentence('resnet18').endswith('Use resnet18 here, or give the search more time.')
    # A known network that has learned nothing is no measure.
    verdict = Comparison(better, chance).sentence('resnet18')
    assert 'better than resnet18 by 50.0 points' in verdict and 'needs more time' in verdict and 'The search was worth it.' not in verdict
    assert Comparison(chance, chance).sentence('resnet18').endswith('both need more time or more images.')
    close = Comparison(answers('1' * 99 + '0'), better)
    assert 'do not differ significantly' in close.sentence('resnet18') and 'no evidence' in close.sentence('resnet18')


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match='different images'):
        Comparison(answers('11', (0, 1)), answers('11', (1, 0)))
