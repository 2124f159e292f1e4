"""The axis that all charts share."""

from __future__ import annotations

import pytest

from nni_darts.report.axes import Axis, ticks


@pytest.mark.parametrize(('low', 'high'), [(0, 1), (91.2, 97.4), (0.001, 0.0017), (54.3, 54.4), (10, 12345)])
def test_ticks_are_few_and_round(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 9 and low <= min(found) and max(found) <= high
    assert len({round((b - a) / (found[1] - found[0]), 6) for a, b in zip(found, found[1:])}) == 1


@pytest.mark.parametrize(
    ('values', 'labels'),
    [
        ([0.0, 3.0], ['0.0', '0.5', '1.0', '1.5', '2.0', '2.5', '3.0']),
        ([91.2, 91.9], ['91.2', '91.3', '91.4', '91.5', '91.6', '91.7', '91.8', '91.9']),
        ([0.0, 4e6], ['0', '1M', '2M', '3M', '4M']),
    ],
)
def test_labels_have_the_decimals_that_the_step_needs(values: list[float], labels: list[str]) -> None:
    assert Axis(values, 0, 1).labels() == labels


def test_axis_of_a_single_value_has_it_at_the_start_or_with_a_margin_in_the_middle() -> None:
    assert Axis([7.0], 10, 30)(7.0) == 10
    assert Axis([7.0, 7.0], 10, 30, margin=0.1)(7.0) == pytest.approx(20)


def test_axis_leaves_its_margin_free_on_both_sides() -> None:
    axis = Axis([0.0, 10.0], 100, 0, margin=0.25)
    assert [axis(value) for value in (-2.5, 0.0, 10.0, 12.5)] == pytest.approx([100, 100 * 5 / 6, 100 / 6, 0])
