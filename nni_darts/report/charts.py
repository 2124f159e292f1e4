"""Small charts as SVG in the colours of the page that contains them. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from nni_darts.recipes.metric import ACCURACY, IMAGE_METRICS, Metric
from nni_darts.report.axes import Axis, short

__all__ = ['Run', 'curve', 'front_chart', 'line_chart', 'measured_charts', 'runs_chart', 'share_chart']

Point = tuple[float, float]

_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 30
_DIGIT = 8.0
"""The largest width of a character of a number."""
_LETTER = 7.0
"""The mean width of a character of a label."""


@dataclass(frozen=True)
class Run:
    """One run in a chart of several runs.

    Attributes:
        name: name of the run.
        group: name shared by all runs of one colour.
        colour: number of its colour, from 0 to 9.
        points: (epoch, value) for each epoch, or a single (cost, value).

    Example:
        ``runs_chart('accuracy', [Run('search random 1', 'random', 0, [(1, 0.5), (2, 0.7)])])``
    """

    name: str
    group: str
    colour: int
    points: Sequence[Point]


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, low: float | None = None) -> str:
    """Returns a chart of lines over epochs, with axes and a legend; '' if there is nothing to draw.

    Args:
        title: title of the chart.
        series: name → (epoch, value) in order of epochs; values that are not finite are left out.
        low: start of the vertical axis, unless a value is smaller; by default the smallest value.
    """
    kept = {name: _finite(points) for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ''
    frame = _Frame([point for points in kept.values() for point in points], low=low)
    parts = frame.begin(title, 'epoch')
    legend = float(_WIDTH - _RIGHT)
    for number, (name, points) in reversed(list(enumerate(kept.items()))):
        parts.append(frame.line(points, f'series s{number}'))
        if len(points) == 1:
            parts.append(f'<circle class="dot s{number}" {frame.centre(points[0])} r="3"/>')
        parts.append(f'<text class="name n{number}" x="{legend:.0f}" y="16" text-anchor="end">{escape(name)}</text>')
        legend -= 7 * len(name) + 12
    return ''.join([*parts, '</svg>'])


def curve(epochs: Sequence[Mapping[str, Any]], name: str, factor: float = 1) -> list[Point]:
    """Returns (epoch, value) for each epoch in which something was measured.

    Args:
        epochs: measurements, in order of epochs.
        name: name of the measurement.
        factor: factor by which values are multiplied.
    """
    return [(entry['epoch'], factor * entry[name]) for entry in epochs if name in entry]


def measured_charts(epochs: Sequence[Mapping[str, Any]], metric: Metric) -> list[str]:
    """Returns charts of the metric, the loss and, for image classifiers, the accuracy over epochs, on training and validation data.

    A chart without values is ''.

    Args:
        epochs: measurements, in order of epochs.
        metric: metric of the recipe.
    """
    parts = ('train', 'valid')
    shown = dict.fromkeys((metric, ACCURACY) if metric in IMAGE_METRICS else (metric,))
    charts = [
        line_chart(one.label, {part: curve(epochs, f'{part}_{one.name}', 100 if one.percent else 1) for part in parts}) for one in shown
    ]
    return [*charts, line_chart('loss', {part: curve(epochs, f'{part}_loss') for part in parts})]


def runs_chart(title: str, runs: Sequence[Run]) -> str:
    """Returns a chart of the learning curves of several runs in one pair of axes; '' if there is nothing to draw.

    Args:
        title: title of the chart.
        runs: the curves; the last one is drawn on top.
    """
    kept = [(run, _finite(run.points)) for run in runs]
    kept = [(run, points) for run, points in kept if points]
    if not kept:
        return ''
    frame = _Frame([point for _, points in kept for point in points])
    parts = frame.begin(title, 'epoch')
    for run, points in kept:
        about = f'{run.name}: {points[-1][1]:.4g} after epoch {points[-1][0]:.0f}'
        parts.append(f'{_opened(run, about)}{frame.line(points, "reach")}{frame.line(points, f"curve c{run.colour}")}')
        parts.append(f'<circle class="end f{run.colour}" {frame.centre(points[-1])} r="2.5"/></g>')
    return ''.join([*parts, '</svg>'])


def front_chart(title: str, cost: str, runs: Sequence[Run], front: Sequence[str], limit: float | None = None) -> str:
    """Returns a chart with one dot for each network, quality against cost, and the Pareto front as a step line; '' without networks.

    A limit is a labelled vertical line. If it is more than twice the largest cost, it would press all dots to the left edge, so only its
    label is shown, with an arrow to the right.

    Args:
        title: title of the chart.
        cost: label of the horizontal axis.
        runs: runs with one point each, (cost, value).
        front: names of the runs on the front, from the cheapest.
        limit: the largest cost that is allowed, if there is a limit.
    """
    kept = {run.name: (run, run.points[0]) for run in runs if _finite(run.points)}
    if not kept:
        return ''
    points = [point for _, point in kept.values()]
    reached = limit is not None and limit <= 2 * max(x for x, _ in points)
    # A limit widens the horizontal axis; the height of a network leaves the vertical one as it is.
    frame = _Frame([*points, *([(limit, points[0][1])] if limit is not None and reached else [])], margin=0.06, whole=False)
    parts = frame.begin(title, cost)
    if limit is not None:
        parts += frame.limit(limit, reached=reached)
    corners = [kept[name][1] for name in front if name in kept]
    steps = [(x, y) for before, (x, y) in zip([None, *corners], corners) for x, y in ([(x, before[1])] if before else []) + [(x, y)]]
    if steps:
        end = max(limit, steps[-1][0]) if limit is not None and reached else frame.across.high
        parts.append(frame.line([*steps, (end, steps[-1][1])], 'front'))
    for name, (run, point) in kept.items():
        about = f'{name}: {point[1]:.4g} at {point[0]:,} {cost}' + (', on the Pareto front' if name in front else '')
        shape = 'dot on-front' if name in front else 'dot'
        parts.append(f'{_opened(run, about)}<circle class="{shape} f{run.colour}" {frame.centre(point)} r="4.5"/></g>')
    return ''.join([*parts, '</svg>'])


def _opened(run: Run, about: str) -> str:
    """Returns the opening tag of a run's group, which the script of the page can highlight."""
    names = f'data-run="{escape(run.name)}" data-group="{escape(run.group)}" data-about="{escape(about)}"'
    return f'<g class="run" {names}><title>{escape(about)}</title>'


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


class _Frame:
    """The two axes of a chart.

    Args:
        points: all points of the chart, at least one.
        low: start of the vertical axis, unless a value is smaller; by default the smallest value.
        margin: free space on all sides, as a fraction of the range.
        whole: whether the horizontal axis has whole numbers only.
    """

    def __init__(self, points: Sequence[Point], *, low: float | None = None, margin: float = 0.0, whole: bool = True) -> None:
        xs, ys = ([point[axis] for point in points] for axis in (0, 1))
        self.across = Axis(xs, _LEFT, _WIDTH - _RIGHT, margin=margin, whole=whole)
        counts = all(y == round(y) for y in ys)
        self.up = Axis([*ys] if low is None else [low, *ys], _HEIGHT - _BOTTOM, _TOP, margin=margin, whole=counts)
        self.whole = whole

    def line(self, points: Sequence[Point], role: str) -> str:
        """Returns a line of class ``role`` through points."""
        return f'<polyline class="{role}" points="{" ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in points)}"/>'

    def centre(self, point: Point) -> str:
        """Returns the position of a point as attributes of a circle."""
        return f'cx="{self.across(point[0]):.1f}" cy="{self.up(point[1]):.1f}"'

    def limit(self, limit: float, *, reached: bool) -> list[str]:
        """Returns a vertical line at a limit with its label above the dots, or the label alone at the right edge if the line is outside.

        Args:
            limit: the limit.
            reached: whether the axis reaches to the limit.
        """
        label = f'limit {short(limit)}' + ('' if reached else ' →')
        right, half = _WIDTH - _RIGHT, _LETTER * len(label) / 2
        if not reached:
            return [f'<text x="{right}" y="{_TOP - 2}" text-anchor="end">{label}</text>']
        x = self.across(limit)
        return [
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>',
            f'<text x="{min(x, _WIDTH - half):.1f}" y="{_TOP - 2}" text-anchor="middle">{label}</text>',
        ]

    def begin(self, title: str, across: str) -> list[str]:
        """Returns the beginning of the SVG element with title, grid and numbers.

        Args:
            title: title of the chart.
            across: label of the horizontal axis, shown if the axis has whole numbers.
        """
        parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
        parts.append(f'<text class="title" x="4" y="16">{escape(title)}</text>')
        for value, label in zip(self.up.ticks, self.up.labels()):
            y = f'{self.up(value):.1f}'
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{self.up(value) + 4:.1f}" text-anchor="end">{label}</text>')
        if self.whole:
            parts.append(f'<text x="4" y="{_HEIGHT - 12}">{escape(across)}</text>')
        for value in self.across.ticks:
            label = f'{value:.0f}' if self.whole else short(value)
            x, half = self.across(value), _DIGIT * len(label) / 2
            # The last number may be at the edge of the picture, where it must not be cut off.
            parts.append(f'<text x="{min(x, _WIDTH - half):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{label}</text>')
        return parts


def share_chart(names: Sequence[str], epochs: Sequence[Mapping[str, float]], order: Sequence[str], width: int, height: int) -> str:
    """Returns a chart of probabilities over epochs, stacked to one with the first name at the bottom, without axes.

    Args:
        names: the candidates.
        epochs: name → probability for each epoch; a missing name counts as zero.
        order: the names whose order determines the colours.
        width: width of the chart in pixels.
        height: height of the chart in pixels.
    """
    parts = [f'<svg class="share" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    # Layers are painted from the top one down. Each reaches to the bottom of the chart, and the next one is painted over it.
    for index in range(len(names) - 1, -1, -1):
        tops = [height * (1 - min(1.0, sum(epoch.get(name, 0.0) for name in names[: index + 1]))) for epoch in epochs]
        tops = tops * 2 if len(tops) == 1 else tops
        step = width / (len(tops) - 1)
        line = ' '.join(f'{position * step:.4g},{top:.3g}' for position, top in enumerate(tops))
        last = epochs[-1].get(names[index], 0.0)
        parts.append(f'<polygon class="o{order.index(names[index])}" points="0,{height} {line} {width},{height}">')
        parts.append(f'<title>{escape(names[index])} {last:.3f}</title></polygon>')
    return ''.join([*parts, '</svg>'])
