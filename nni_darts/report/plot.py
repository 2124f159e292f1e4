"""Accuracy (or perplexity) against cost as one drawing that needs nothing else: SVG, for pages and documents. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ['Mark', 'plot', 'ticks']

Spread = Mapping[str, float | int]
"""Mean, sample standard deviation and count."""

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 52
COLOURS = ('#0a66c2', '#c2410c', '#15803d', '#9333ea', '#b91c1c', '#0e7490', '#a16207', '#be185d', '#4d7c0f', '#475569')
LINE = 15
"""Height of a line of names."""


@dataclass(frozen=True)
class Mark:
    """One thing that is compared: its name, and the spreads of cost and value over seeds."""

    name: str
    cost: Spread
    value: Spread


def plot(marks: Sequence[Mark], *, cost_label: str, value_label: str) -> str:
    """An SVG element: a dot at the mean of each mark, whiskers of one standard deviation both ways, its name beside it.

    Args:
        cost_label, value_label: what stands along the axes.

    Names never overlap: they stand in a column on the right, tied to their dots by a thin line. Text takes the page's colour.

    Raises:
        ValueError: without a mark.
    """
    if not marks:
        raise ValueError('there is nothing to draw')
    across = _Axis([mark.cost for mark in marks], LEFT, WIDTH - RIGHT)
    up = _Axis([mark.value for mark in marks], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(value_label)} against {escape(cost_label)}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="currentColor" style="max-width: 52rem; width: 100%">'
    ]
    for tick in across.ticks:
        parts.append(_line(across(tick), TOP, across(tick), HEIGHT - BOTTOM, 'currentColor', 0.15))
        parts.append(_text(across(tick), HEIGHT - BOTTOM + 16, f'{tick:g}', 'middle'))
    for tick in up.ticks:
        parts.append(_line(LEFT, up(tick), WIDTH - RIGHT, up(tick), 'currentColor', 0.15))
        parts.append(_text(LEFT - 8, up(tick) + 4, f'{tick:g}', 'end'))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, cost_label, 'middle'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(16, middle, value_label, 'middle', f' transform="rotate(-90 16 {middle:.1f})"'))
    rows = _rows([up(mark.value['mean']) for mark in marks])
    for index, (mark, row) in enumerate(zip(marks, rows)):
        colour = COLOURS[index % len(COLOURS)]
        x, y = across(mark.cost['mean']), up(mark.value['mean'])
        title = f'{mark.name}: {_shown(mark.value)} at {_shown(mark.cost)}'
        parts.append(f'<g><title>{escape(title)}</title>')
        parts.append(_line(*_whisker(across, mark.cost, lambda at, y=y: (at, y)), colour, 1))
        parts.append(_line(*_whisker(up, mark.value, lambda at, x=x: (x, at)), colour, 1))
        parts.append(_line(x, y, WIDTH - RIGHT + 8, row, colour, 0.35))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 12, row + 4, mark.name, 'start'))
        parts.append('</g>')
    return ''.join([*parts, '</svg>'])


class _Axis:
    """Numbers → places between two ends; the ticks lie inside."""

    def __init__(self, spreads: Sequence[Spread], start: float, end: float) -> None:
        low = min(spread['mean'] - spread['sd'] for spread in spreads)
        high = max(spread['mean'] + spread['sd'] for spread in spreads)
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end
        self.ticks = ticks(self.low, self.high)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float) -> list[float]:
    """Some four to nine round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) < 8)
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _rows(places: Sequence[float]) -> list[float]:
    """Where names stand: as near to their dots' height as they can without touching each other."""
    order = sorted(range(len(places)), key=places.__getitem__)
    line = min(LINE, (HEIGHT - TOP - BOTTOM) / max(1, len(places) - 1))
    rows = list(places)
    for before, index in zip([None, *order], order):
        rows[index] = max(places[index], TOP) if before is None else max(places[index], rows[before] + line)
    last = HEIGHT - BOTTOM
    for index in reversed(order):
        rows[index] = min(rows[index], last)
        last = rows[index] - line
    return rows


def _whisker(axis: _Axis, spread: Spread, place) -> tuple[float, float, float, float]:
    ends = (place(axis(spread['mean'] + sign * spread['sd'])) for sign in (-1, 1))
    return tuple(number for end in ends for number in end)  # type: ignore[return-value]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, opacity: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-opacity="{opacity}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = '') -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _shown(spread: Spread) -> str:
    return f'{spread["mean"]:.4g} ± {spread["sd"]:.2g}' if spread['count'] > 1 else f'{spread["mean"]:.4g}'
