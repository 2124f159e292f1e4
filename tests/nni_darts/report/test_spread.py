"""The interval around a mean against scipy's own, against values worked out by hand, and by simulation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from nni_darts.report.spread import spread


@pytest.mark.parametrize('values', [[0.91, 0.93], [0.9, 0.92, 0.95], [55.1, 58.2, 57.0, 60.4, 56.6], [0.5] * 4], ids=len)
def test_mean_deviation_and_interval_are_scipys(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    assert (found.n, found.mean) == (len(values), pytest.approx(mean))
    assert found.sd == pytest.approx(deviation)
    if deviation:
        expected = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx(expected)
    else:
        assert found.low == found.high == found.mean


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = random.Random(0)
    draws = [spread([rng.gauss(1, 0.2) for _ in range(3)]) for _ in range(2000)]
    assert 0.94 < sum(found.low <= 1 <= found.high for found in draws) / len(draws) < 0.96


def test_the_interval_of_two_numbers() -> None:
    found = spread([1.0, 3.0])
    assert (found.n, found.mean) == (2, 2.0)
    assert found.sd == pytest.approx(math.sqrt(2))
    # t(0.975, 1) = tan(0.475 π) = 12.7062; times √2 / √2
    assert (found.low, found.high) == (pytest.approx(2 - 12.7062, abs=1e-4), pytest.approx(2 + 12.7062, abs=1e-4))


def test_the_interval_of_four_numbers() -> None:
    found = spread([2.0, 4.0, 4.0, 6.0])
    assert found.sd == pytest.approx(math.sqrt(8 / 3))
    # t(0.975, 3) = 3.18245; sd / √4 = 0.816497
    assert found.high - found.mean == pytest.approx(3.18245 * 0.816497, abs=1e-4)


def test_one_number_has_no_spread_and_none_is_nothing() -> None:
    found = spread([0.5])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 0.5, None, None, None)
    assert spread([]) is None
