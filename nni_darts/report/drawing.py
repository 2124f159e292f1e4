"""Drawings of cells in the style of the papers, laid out in layers from left to right without the program ``dot``. Imports no torch.

The layout is Sugiyama's (layers, few crossings, dummy vertices on long edges), computed by the library fast-sugiyama. This module turns it
into shapes, and shapes into SVG; :mod:`nni_darts.report.png` paints the same shapes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from fast_sugiyama import from_edges

from nni_darts.genotypes import AnyGenotype
from nni_darts.genotypes.graphs import Box, CellGraph

__all__ = ['COLOURS', 'Curve', 'Drawing', 'Label', 'Rectangle', 'cell_svg', 'draw_cells']

Point = tuple[float, float]

FONT_SIZE = 13
_CHARACTER = 0.62 * FONT_SIZE  # width of a character in a monospaced font
_HEIGHT, _PADDING, _BETWEEN, _GAP, _MARGIN, _TITLE, _HEAD = 26.0, 9.0, 30.0, 36.0, 14.0, 30.0, 8.0

COLOURS: Mapping[str, tuple[str, str]] = {
    'background': ('#ffffff', '#121212'),
    'text': ('#1b1f24', '#e6e6e6'),
    'line': ('#6e7781', '#8b949e'),
    'input': ('#c7e9c0', '#1f5a2a'),
    'state': ('#bdd7ee', '#1d4a73'),
    'output': ('#ffe699', '#6b5310'),
    'skip': ('#ececec', '#3a3a3a'),
    'pool': ('#e3d7f3', '#4a3570'),
    'convolution': ('#fbdcc4', '#6b3a17'),
    'activation': ('#fbdcc4', '#6b3a17'),
}
"""Part of a drawing → its colours on light and on dark pages."""


@dataclass(frozen=True)
class Rectangle:
    """A box: left, top, width and height in pixels; ``role`` is that of :class:`~nni_darts.genotypes.graphs.Box`."""

    x: float
    y: float
    width: float
    height: float
    role: str
    text: str

    @property
    def radius(self) -> int:
        """Radius of the corners, which is larger for states than for operations."""
        return 12 if self.role in ('input', 'state', 'output') else 4


@dataclass(frozen=True)
class Curve:
    """An arrow through points, horizontal at each of them."""

    points: tuple[Point, ...]

    def bends(self) -> list[tuple[Point, Point, Point]]:
        """Returns Bézier curves between successive points, each as two control points and its end. The last one ends at the arrow head."""
        (x, y), points = self.points[-1], list(self.points)
        points[-1] = (x - _HEAD, y)
        bends = []
        for (x0, y0), (x1, y1) in pairwise(points):
            half = (x0 + x1) / 2
            bends.append(((half, y0), (half, y1), (x1, y1)))
        return bends

    def head(self) -> tuple[Point, Point, Point]:
        """Returns the corners of the arrow head."""
        x, y = self.points[-1]
        return (x, y), (x - _HEAD, y - _HEAD / 2), (x - _HEAD, y + _HEAD / 2)


@dataclass(frozen=True)
class Label:
    """A title; (x, y) is the start of its baseline."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Drawing:
    """Shapes on a page whose size is given in pixels."""

    width: float
    height: float
    shapes: tuple[Rectangle | Curve | Label, ...]


def draw_cells(genotype: AnyGenotype, strengths: Mapping[str, float] | None = None) -> Drawing:
    """Draws the cells of a genotype one below the other.

    The arguments are those of :meth:`~nni_darts.genotypes.AnyGenotype.graphs`.
    """
    shapes: list[Rectangle | Curve | Label] = []
    width, top = 0.0, _MARGIN
    for graph in genotype.graphs(strengths):
        shapes.append(Label(_MARGIN, top + FONT_SIZE, graph.title))
        right, top, drawn = _draw(graph, top + _TITLE)
        shapes += drawn
        width = max(width, right)
    return Drawing(width + _MARGIN, top, tuple(shapes))


def _draw(graph: CellGraph, top: float) -> tuple[float, float, list[Rectangle | Curve]]:
    """Returns the right end, the lower end (with a margin) and the shapes of a cell whose upper end is at ``top``."""
    for name in ('rust-sugiyama', 'rust_sugiyama', 'connected_components'):
        logging.getLogger(name).setLevel(logging.WARNING)  # it logs every step, which would fill NNI's logs
    # The ids are numbers, because the library keeps ids in a set and the order of strings differs between processes.
    ((found, _, _, links),) = from_edges(
        [*graph.edges, *graph.hidden], minimum_length=1, vertex_spacing=1, dummy_vertices=True, dummy_size=0.5, transpose=True
    )
    # The library puts layers below each other, with the first on top at the largest y; here they are side by side.
    order = sorted({y for _, (_, y) in found}, reverse=True)
    layer = {key: order.index(y) for key, (_, y) in found}
    across = {key: x for key, (x, _) in found}
    inputs = [across[key] for key, box in enumerate(graph.boxes) if box.role == 'input']
    beside = [across[key] for key, box in enumerate(graph.boxes) if box.role == 'state' and layer[key] == 1]
    if inputs != sorted(inputs) or beside != sorted(beside):
        across = {key: -x for key, x in across.items()}  # mirrored, so that the first input and the first choice are at the top
    first = min(across.values())
    middle = {key: top + _HEIGHT / 2 + _GAP * (x - first) for key, x in across.items()}
    widths = [max((_width(box) for key, box in enumerate(graph.boxes) if layer[key] == index), default=0.0) for index in range(len(order))]
    lefts = [_MARGIN + sum(widths[:index]) + _BETWEEN * index for index in range(len(widths))]

    boxes = []
    for key, box in enumerate(graph.boxes):
        width = _width(box)
        left = lefts[layer[key]] + (widths[layer[key]] - width) / 2
        boxes.append(Rectangle(left, middle[key] - _HEIGHT / 2, width, _HEIGHT, box.role, _text(box)))

    following: dict[int, list[int]] = defaultdict(list)
    dummies: Any = links  # ids are numbers here, and the library returns links because dummy vertices are requested
    for source, target in dummies:
        following[source].append(target)
    curves = []
    for source, target in graph.edges:
        points = [(boxes[source].x + boxes[source].width, middle[source])]
        for key in _dummies(source, target, following, len(graph.boxes)):
            points += [(lefts[layer[key]], middle[key]), (lefts[layer[key]] + widths[layer[key]], middle[key])]
        points.append((boxes[target].x, middle[target]))
        curves.append(Curve(tuple(points)))
    return lefts[-1] + widths[-1], max(middle.values()) + _HEIGHT / 2 + _MARGIN, [*curves, *boxes]


def _dummies(source: int, target: int, following: Mapping[int, Sequence[int]], boxes: int) -> list[int]:
    """Returns the dummy vertices of the layout between two boxes: one on each layer that the edge between them crosses."""
    for key in following[source]:
        chain = []
        while key >= boxes:
            chain.append(key)
            (key,) = following[key]
        if key == target:
            return chain
    raise AssertionError(f'the layout lost the edge {source} → {target}')


def _text(box: Box) -> str:
    return box.text if box.strength is None else f'{box.text} {box.strength:.2f}'


def _width(box: Box) -> float:
    return max(_HEIGHT, len(_text(box)) * _CHARACTER + 2 * _PADDING)


# SVG --------------------------------------------------------------------------------------------------------------------------------


def cell_svg(genotype: AnyGenotype, strengths: Mapping[str, float] | None = None) -> str:
    """Returns the drawing as SVG that follows the page's light or dark scheme. The arguments are those of :func:`draw_cells`."""
    drawing = draw_cells(genotype, strengths)
    width, height = round(drawing.width), round(drawing.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cell" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(genotype.to_text())}">',
        f'<style>{_style()}</style>',
        f'<rect class="cell-background" width="{width}" height="{height}"/>',
        *map(_svg, drawing.shapes),
        '</svg>',
    ]
    return '\n'.join(parts) + '\n'


def _style() -> str:
    def rules(scheme: int) -> str:
        fills = ''.join(f'.cell-{name}{{fill:{colours[scheme]}}}' for name, colours in COLOURS.items() if name != 'line')
        line = COLOURS['line'][scheme]
        return f'{fills}.cell-arrow{{fill:{line}}}.cell-line,.cell-box{{stroke:{line}}}'

    font = f'font:{FONT_SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace'
    fixed = f'.cell text{{{font}}}.cell-line{{fill:none;stroke-width:1.4}}'
    return f'{fixed}{rules(0)}@media(prefers-color-scheme:dark){{{rules(1)}}}'


def _svg(shape: Rectangle | Curve | Label) -> str:
    if isinstance(shape, Label):
        return f'<text class="cell-text" x="{shape.x:.1f}" y="{shape.y:.1f}" font-weight="600">{escape(shape.text)}</text>'
    if isinstance(shape, Curve):
        start = '{:.1f},{:.1f}'.format(*shape.points[0])
        bends = ' '.join('C' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in bend) for bend in shape.bends())
        head = ' '.join(f'{x:.1f},{y:.1f}' for x, y in shape.head())
        return f'<path class="cell-line" d="M{start} {bends}"/><polygon class="cell-arrow" points="{head}"/>'
    box = f'x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" rx="{shape.radius}"'
    middle = f'x="{shape.x + shape.width / 2:.1f}" y="{shape.y + shape.height / 2 + 0.35 * FONT_SIZE:.1f}" text-anchor="middle"'
    return f'<rect class="cell-box cell-{shape.role}" {box}/><text class="cell-text" {middle}>{escape(shape.text)}</text>'
