"""The front of strength against cost, as lines of text and as a picture. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nni_darts.files import write_text
from nni_darts.report.axes import Axis, short
from nni_darts.report.fronts import cost_title

__all__ = ['front_lines', 'write_front']

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 400, 64, 20, 16, 52
_LINE, _DOT, _TEXT, _GRID = '#0a66c2', '#0a66c2', '#333333', '#dddddd'
_SCALE = 3
"""Pixels of a PNG for one unit of the drawing."""

_Point = tuple[float, float]

Text = tuple[float, float, str, str]
"""(x, y, text, anchor), where the anchor is start, middle or end."""


def front_lines(cells: Sequence[tuple[Mapping[str, float], float, str]]) -> list[str]:
    """Returns a table of (costs, strength, code) of cells, whose strength is a fraction of that of the strongest cell."""
    measures = list(cells[0][0])
    rows = [[*map(cost_title, measures), 'strength', 'cell']]
    # Costs have all their decimals, so that one of them can be given as the limit.
    rows += [[*(f'{costs[measure]:,}' for measure in measures), f'{100 * strength:.1f} %', code] for costs, strength, code in cells]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ['  '.join([*(f'{entry:>{width}}' for entry, width in zip(row, widths)), row[-1]]) for row in rows]


def write_front(path: Path, points: Sequence[tuple[float, float]], measure: str) -> None:
    """Draws strength against cost, with a step between points, because the strongest cell below a limit costs at most the limit.

    Args:
        path: path of a .svg or .png.
        points: (cost, strength) of each cell, from the cheapest.
        measure: name of the cost.
    """
    across = Axis([cost for cost, _ in points], _LEFT, _WIDTH - _RIGHT, margin=0.04)
    up = Axis([100 * strength for _, strength in points], _HEIGHT - _BOTTOM, _TOP, margin=0.06)
    dots = [(across(cost), up(100 * strength)) for cost, strength in points]
    steps = dots[:1]
    for x, y in dots[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    grid: list[tuple[_Point, _Point]] = [((across(tick), _TOP), (across(tick), _HEIGHT - _BOTTOM)) for tick in across.ticks]
    grid += [((_LEFT, up(tick)), (_WIDTH - _RIGHT, up(tick))) for tick in up.ticks]
    costs = zip(across.ticks, map(short, across.ticks))
    texts: list[Text] = [(across(tick), _HEIGHT - _BOTTOM + 16, label, 'middle') for tick, label in costs]
    texts += [(_LEFT - 8, up(tick) + 4, label, 'end') for tick, label in zip(up.ticks, up.labels())]
    title = f'{cost_title(measure)} (upwards: strength in % of the strongest cell)'
    texts.append(((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, title, 'middle'))
    if path.suffix == '.svg':
        write_text(path, _svg(grid, steps, dots, texts))
    else:
        _write_png(path, grid, steps, dots, texts)


def _svg(grid: Sequence[tuple[_Point, _Point]], steps: Sequence[_Point], dots: Sequence[_Point], texts: Sequence[Text]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    parts += [f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" stroke="{_GRID}"/>' for (a, b), (c, d) in grid]
    line = ' '.join(f'{x:.1f},{y:.1f}' for x, y in steps)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{_LINE}"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_DOT}"/>' for x, y in dots]
    parts += [f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_TEXT}">{escape(text)}</text>' for x, y, text, anchor in texts]
    return ''.join([*parts, '</svg>\n'])


def _write_png(
    path: Path, grid: Sequence[tuple[_Point, _Point]], steps: Sequence[_Point], dots: Sequence[_Point], texts: Sequence[Text]
) -> None:
    image = Image.new('RGB', (_WIDTH * _SCALE, _HEIGHT * _SCALE), '#ffffff')
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(12 * _SCALE)

    def scaled(points: Sequence[_Point]) -> list[_Point]:
        return [(x * _SCALE, y * _SCALE) for x, y in points]

    for line in grid:
        canvas.line(scaled(line), _GRID, _SCALE)
    if len(steps) > 1:
        canvas.line(scaled(steps), _LINE, _SCALE)
    for x, y in dots:
        canvas.ellipse(scaled([(x - 4, y - 4), (x + 4, y + 4)]), _DOT)
    for x, y, text, anchor in texts:
        canvas.text((x * _SCALE, y * _SCALE), text, _TEXT, font, anchor={'start': 'ls', 'middle': 'ms', 'end': 'rs'}[anchor])
    image.save(path)
