"""A self-contained SVG plot of accuracy (or perplexity) against cost, for pages and documents. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nni_darts.report.axes import Axis, short

__all__ = ['Mark', 'plot']

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 52
COLOURS = ('#0a66c2', '#c2410c', '#15803d', '#9333ea', '#b91c1c', '#0e7490', '#a16207', '#be185d', '#4d7c0f', '#475569')
LINE = 15
"""Height of a line of text in the column of names."""
_MARGIN = 0.06


@dataclass(frozen=True)
class Mark:
    """One item of a comparison.

    Attributes:
        name: label of the item.
        costs: one cost for each seed.
        values: one value for each seed.
        colour: number of its colour, from 0 to 9; None for the number of the mark.
    """

    name: str
    costs: Sequence[float]
    values: Sequence[float]
    colour: int | None = None


@dataclass(frozen=True)
class _Spread:
    """Mean and sample standard deviation, which is 0 for a single number."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> _Spread:
        return cls(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0)

    @property
    def ends(self) -> tuple[float, float]:
        return self.mean - self.deviation, self.mean + self.deviation


def plot(
    marks: Sequence[Mark],
    *,
    cost_label: str,
    value_label: str,
    front: Sequence[tuple[float, float]] = (),
    limits: Sequence[float] = (),
) -> str:
    """Returns an SVG plot with a dot at the mean of each mark, whiskers of one standard deviation in both directions, and the names.

    Names never overlap: they form a column on the right, and a thin line connects each name to its dot. Text has the page's colour.

    Args:
        marks: the items to compare.
        cost_label: label of the horizontal axis.
        value_label: label of the vertical axis.
        front: (cost, value) of a Pareto front from the cheapest entry, drawn as a dashed step line.
        limits: largest costs that are allowed, each drawn as an upright line with its amount.

    Raises:
        ValueError: if there are no marks.
    """
    if not marks:
        raise ValueError('there is nothing to draw')
    costs = [_Spread.of(mark.costs) for mark in marks]
    values = [_Spread.of(mark.values) for mark in marks]
    ends = [end for cost in costs for end in cost.ends]
    across = Axis([*ends, *limits, *(cost for cost, _ in front)], LEFT, WIDTH - RIGHT, margin=_MARGIN)
    up = Axis([*(end for value in values for end in value.ends), *(value for _, value in front)], HEIGHT - BOTTOM, TOP, margin=_MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(value_label)} against {escape(cost_label)}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="currentColor" style="max-width: 52rem; width: 100%; min-width: 32rem">'
    ]
    for tick, label in zip(across.ticks, across.labels()):
        parts.append(_line(across(tick), TOP, across(tick), HEIGHT - BOTTOM, 'currentColor', 0.15))
        parts.append(_text(across(tick), HEIGHT - BOTTOM + 16, label, 'middle'))
    for tick, label in zip(up.ticks, up.labels()):
        parts.append(_line(LEFT, up(tick), WIDTH - RIGHT, up(tick), 'currentColor', 0.15))
        parts.append(_text(LEFT - 8, up(tick) + 4, label, 'end'))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, cost_label, 'middle'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(16, middle, value_label, 'middle', f' transform="rotate(-90 16 {middle:.1f})"'))
    for limit in limits:
        parts.append(_line(across(limit), TOP, across(limit), HEIGHT - BOTTOM, 'currentColor', 0.8))
        parts.append(_text(across(limit) - 4, HEIGHT - BOTTOM - 6, f'limit {short(limit)}', 'end'))
    if front:
        steps = [
            f'M {across(front[0][0]):.1f} {up(front[0][1]):.1f}',
            *(f'H {across(cost):.1f} V {up(value):.1f}' for cost, value in front[1:]),
        ]
        steps.append(f'H {WIDTH - RIGHT}')
        parts.append(f'<path d="{" ".join(steps)}" style="stroke: currentColor; fill: none" stroke-opacity="0.6" stroke-dasharray="5 4"/>')
    rows = _rows([up(value.mean) for value in values])
    for index, (mark, cost, value, row) in enumerate(zip(marks, costs, values, rows)):
        number = (index if mark.colour is None else mark.colour) % len(COLOURS)
        colour = f'var(--c{number}, {COLOURS[number]})'  # a page may have its own colours for dark mode
        x, y = across(cost.mean), up(value.mean)
        title = f'{mark.name}: {value.mean:.4g} ± {value.deviation:.2g} at {cost.mean:.4g} ± {cost.deviation:.2g}'
        parts += [
            f'<g><title>{escape(title)}</title>',
            _line(across(cost.ends[0]), y, across(cost.ends[1]), y, colour, 1),
            _line(x, up(value.ends[0]), x, up(value.ends[1]), colour, 1),
            _line(x, y, WIDTH - RIGHT + 8, row, colour, 0.5),
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" style="fill: {colour}"/>',
            _text(WIDTH - RIGHT + 12, row + 4, mark.name, 'start'),
            '</g>',
        ]
    return ''.join([*parts, '</svg>'])


def _rows(places: Sequence[float]) -> list[float]:
    """Returns the vertical positions of the names, as close to their dots as possible without overlap."""
    order = sorted(range(len(places)), key=places.__getitem__)
    line = min(LINE, (HEIGHT - TOP - BOTTOM) / max(1, len(places) - 1))
    rows = list(places)
    for before, index in zip([None, *order], order):
        rows[index] = max(places[index], TOP) if before is None else max(places[index], rows[before] + line)
    last: float = HEIGHT - BOTTOM
    for index in reversed(order):
        rows[index] = min(rows[index], last)
        last = rows[index] - line
    return rows


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, opacity: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="stroke: {colour}" stroke-opacity="{opacity}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = '') -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
