"""Charts: every point at its place, round numbers on the axes, nothing for nothing."""

from __future__ import annotations

import math
import re

import pytest

from nni_darts.report.charts import Run, front_chart, line_chart, share_chart


def points(svg: str) -> list[list[tuple[float, float]]]:
    lists = re.findall(r'points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(','))) for pair in line.split()] for line in lists]


def labels(svg: str) -> list[float]:
    return [float(text) for text in re.findall(r'text-anchor="end">(-?[\d.e+-]+)</text>', svg)]


@pytest.mark.parametrize(
    ('values', 'low', 'ticks'),
    [
        ([0.1, 0.9, 0.5], None, [0.2, 0.4, 0.6, 0.8]),
        ([0, 0, 0], 0, [0, 1]),  # of counts whole numbers
        ([2, 3, 2], 0, [0, 1, 2, 3]),
        ([5.5, 5.5], None, [5.5, 5.6, 5.7, 5.8, 5.9, 6.0]),
        ([-2, 1, 4], 0, [-2, -1, 0, 1, 2, 3, 4]),
        ([0.99991, 1.0, 0.99995], None, [0.99992, 0.99994, 0.99996, 0.99998]),
        ([7000.0, 12.5], None, [1000, 2000, 3000, 4000, 5000, 6000, 7000]),
    ],
)
def test_values_lie_between_the_ticks_in_proportion(values: list[float], low: float | None, ticks: list[float]) -> None:
    svg = line_chart('title', {'a': list(enumerate(values, start=1))}, low=low)
    assert labels(svg) == pytest.approx(ticks)
    heights = {float(text): float(y) for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">(-?[\d.]+)</text>', svg) if text != 'a'}
    (line,) = points(svg)
    top, bottom = heights[max(heights)] - 4, heights[min(heights)] - 4
    for (_, y), value in zip(line, values):
        assert y == pytest.approx(bottom + (top - bottom) * (value - min(ticks)) / (max(ticks) - min(ticks)), abs=0.3)
    assert [x for x, _ in line] == sorted(x for x, _ in line)


def test_what_is_not_finite_is_left_out_and_nothing_gives_nothing() -> None:
    svg = line_chart('title', {'a': [(1, 1.0), (2, math.nan), (3, math.inf), (4, 2.0)], 'b': []})
    assert [len(line) for line in points(svg)] == [2] and '>b<' not in svg
    assert line_chart('title', {'a': [], 'b': [(1, math.nan)]}) == ''


def test_shares_are_stacked_to_the_top() -> None:
    svg = share_chart(['none', 'x<y'], [{'none': 0.25, 'x<y': 0.75}, {'none': 1.0}], ['none', 'x<y'], 100, 40)
    above, below = points(svg)
    assert above == [(0, 40), (0, 0), (100, 0), (100, 40)]
    assert below == [(0, 40), (0, 30), (100, 0), (100, 40)]
    assert 'x&lt;y 0.000' in svg and svg.index('class="o1"') < svg.index('class="o0"')


def test_numbers_below_a_chart_are_not_cut_off_at_its_edge() -> None:
    runs = [Run(f'run {size}', 'group', 0, [(size, 0.9)]) for size in (1_240_000, 1_373_000)]
    svg = front_chart('title', 'multiply-adds', runs, ())
    places = [(float(x), text) for x, text in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">([^<]*)</text>', svg)]
    assert places[-1][1] == '1.38M' and all(x + 4 * len(text) <= 400 for x, text in places)


def front(limit: float | None, *costs: float) -> str:
    runs = [Run(f'run {cost}', 'group', 0, [(cost, 0.8 + cost / 1e6)]) for cost in costs]
    return front_chart('title', 'parameters', runs, [run.name for run in runs], limit)


@pytest.mark.parametrize('limit', [1000, 2500, 4000, 6000])
def test_a_limit_is_a_labelled_line_at_its_cost_where_the_front_ends(limit: int) -> None:
    svg = front(limit, 1000, 3000)
    (line,) = re.findall(r'<line class="limit" x1="([\d.]+)" x2="([\d.]+)"', svg)
    dots = [float(x) for x in re.findall(r'<circle [^>]*cx="([\d.]+)"', svg)]
    expected = dots[0] + (dots[1] - dots[0]) * (limit - 1000) / 2000
    assert [float(x) for x in line] == pytest.approx([expected] * 2, abs=0.3)
    assert f'>limit {limit / 1000:g}k</text>' in svg
    ends = points(svg)[0][-1][0]
    assert ends == pytest.approx(max(expected, dots[1]), abs=0.3)  # a network may cost more where a limit is not one of its stage
    assert all(52 <= dot <= 388 for dot in (*dots, ends))


def test_a_limit_far_from_all_networks_is_a_label_only() -> None:
    svg = front(1_000_000, 1000, 3000)
    assert '>limit 1M →</text>' in svg and 'class="limit"' not in svg
    assert svg.replace('<text x="388" y="28" text-anchor="end">limit 1M →</text>', '') == front(None, 1000, 3000)
