from __future__ import annotations

from itertools import combinations

import pytest
import torch

from nni_darts.strategies.relaxations.subsets import best_subset, slot_weights, subset_weights


@pytest.mark.parametrize('chosen', [1, 2, 3, 5])
def test_weights_are_probabilities_of_being_chosen(chosen: int) -> None:
    """Against sampling by enumeration: P(S) ∝ exp of the sum."""
    alpha = torch.randn(5, dtype=torch.float64)
    scores = {subset: float(torch.exp(sum(alpha[i] for i in subset))) for subset in combinations(range(5), chosen)}
    total = sum(scores.values())
    expected = torch.tensor([sum(score for subset, score in scores.items() if i in subset) / total for i in range(5)]).double()
    found = subset_weights(alpha, chosen)
    torch.testing.assert_close(found, expected)
    assert float(found.sum()) == pytest.approx(chosen)
    slots = slot_weights(alpha, chosen)
    assert slots.shape == (chosen, 5)
    torch.testing.assert_close(slots.sum(0), expected)
    torch.testing.assert_close(slots.sum(1), torch.ones(chosen).double())


def test_one_of_many_is_the_softmax() -> None:
    alpha = torch.randn(6)
    torch.testing.assert_close(subset_weights(alpha, 1), torch.softmax(alpha, 0))


def test_any_number() -> None:
    alpha = torch.tensor([3.0, -3.0, 2.0])
    assert best_subset(alpha, None) == [0, 2]
    assert best_subset(-torch.ones(3), None) == [0]  # never none at all
    assert float(subset_weights(alpha, None, mean=True).sum()) == pytest.approx(1)


def test_the_best_subset_is_that_of_the_largest_alphas() -> None:
    assert best_subset(torch.tensor([0.1, 0.3, 0.2]), 2) == [1, 2]
    assert best_subset(torch.zeros(4), 2) == [0, 1]


def test_too_many_subsets_is_an_error() -> None:
    with pytest.raises(ValueError, match='too many'):
        subset_weights(torch.zeros(40), 20)
