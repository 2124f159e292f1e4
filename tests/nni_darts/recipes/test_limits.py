"""Limits in a recipe: how amounts are written, and one sentence for what is no amount."""

from __future__ import annotations

from typing import Any

import pytest

from nni_darts.errors import InputError
from nni_darts.recipes import Recipe
from nni_darts.recipes.limits import parse_amount


@pytest.mark.parametrize(
    ('written', 'amount'),
    [(800_000, 800_000), ('800k', 800_000), ('1.5M', 1_500_000), ('2G', 2 * 10**9), ('0.3 M', 300_000), ('12,345', 12_345), (1e6, 10**6)],
)
def test_an_amount_is_a_number_or_a_number_with_a_letter(written: Any, amount: int) -> None:
    assert parse_amount(written) == amount


@pytest.mark.parametrize('written', ['', 'M', '1 MB', '-3', 0, True, None, 'nan', [1], '1e6', float('inf')])
def test_anything_else_is_refused_in_one_sentence(written: Any) -> None:
    with pytest.raises(ValueError, match='must be a number from 1, or a number with k, M or G'):
        parse_amount(written)


def test_a_recipe_reads_and_writes_limits() -> None:
    recipe = Recipe.load('digits', ['limits.parameters=80k', 'limits.multiply_adds=1.2M'])
    assert recipe.limits is not None and recipe.limits.amounts() == {'parameters': 80_000, 'multiply_adds': 1_200_000}
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.load('digits').limits is None


@pytest.mark.parametrize(
    ('limits', 'message'),
    [
        ({}, 'limits needs a value for parameters, multiply_adds or latency_ms'),
        ({'params': 3}, "unknown key 'limits.params' .did you mean 'parameters'.*; allowed: parameters, multiply_adds"),
        ({'parameters': 'few'}, "it is 'few'"),
    ],
)
def test_wrong_limits_name_the_key_and_what_is_allowed(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load('digits', {'limits': limits})
