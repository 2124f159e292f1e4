"""Small charts as SVG that take their colours from the page they stand on. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from nni_darts.report.plot import ticks

__all__ = ['line_chart', 'share_chart']

_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 30


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, low: float | None = None) -> str:
    """Lines over epochs, with axes and a legend; '' if there is nothing to draw.

    Args:
        title: of the chart.
        series: name → (epoch, value) in order of epochs; values that are not finite are left out.
        low: where the axis of values begins if no value is smaller; the smallest value unless given.
    """
    kept = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ''
    xs, ys = ([point[axis] for points in kept.values() for point in points] for axis in (0, 1))
    (first, last), (bottom, top) = _range(xs), _range([*ys] if low is None else [low, *ys])
    counts = all(y == round(y) for y in ys)

    def x_of(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - first) / (last - first)

    def y_of(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - bottom) / (top - bottom)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<text class="title" x="4" y="16">{escape(title)}</text>')
    for value in ticks(bottom, top, whole=counts):
        y = f'{y_of(value):.1f}'
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks(first, last, whole=True):
        parts.append(f'<text x="{x_of(value):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{value:.0f}</text>')
    parts.append(f'<text x="4" y="{_HEIGHT - 12}">epoch</text>')
    legend = float(_WIDTH - _RIGHT)
    for number, (name, points) in reversed(list(enumerate(kept.items()))):
        path = ' '.join(f'{x_of(x):.1f},{y_of(y):.1f}' for x, y in points)
        parts.append(f'<polyline class="series s{number}" points="{path}"/>')
        if len(points) == 1:
            parts.append(f'<circle class="dot s{number}" cx="{x_of(points[0][0]):.1f}" cy="{y_of(points[0][1]):.1f}" r="3"/>')
        parts.append(f'<text class="name n{number}" x="{legend:.0f}" y="16" text-anchor="end">{escape(name)}</text>')
        legend -= 7 * len(name) + 12
    return ''.join([*parts, '</svg>'])


def share_chart(names: Sequence[str], epochs: Sequence[Mapping[str, float]], order: Sequence[str], width: int, height: int) -> str:
    """Probabilities over epochs, stacked to one, the first name at the bottom; without axes.

    Args:
        names: the candidates.
        epochs: for each epoch, name → probability; one that is missing counts as zero.
        order: names whose place gives the colour.
    """
    parts = [f'<svg class="share" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    # From the top layer down, each reaching to the ground: the next one is painted over it.
    for index in range(len(names) - 1, -1, -1):
        tops = [height * (1 - min(1.0, sum(epoch.get(name, 0.0) for name in names[: index + 1]))) for epoch in epochs]
        tops = tops * 2 if len(tops) == 1 else tops
        step = width / (len(tops) - 1)
        line = ' '.join(f'{position * step:.4g},{top:.3g}' for position, top in enumerate(tops))
        last = epochs[-1].get(names[index], 0.0)
        parts.append(f'<polygon class="o{order.index(names[index])}" points="0,{height} {line} {width},{height}">')
        parts.append(f'<title>{escape(names[index])} {last:.3f}</title></polygon>')
    return ''.join([*parts, '</svg>'])


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the smallest to the largest; of equal ones a little more than that."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + (abs(low) * 0.1 or 1.0))
