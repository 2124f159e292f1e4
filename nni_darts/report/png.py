"""Paints drawings of cells as PNG files with Pillow and its own font, so that it works on machines without fonts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nni_darts.genotypes import AnyGenotype
from nni_darts.report.drawing import COLOURS, FONT_SIZE, Curve, Label, Point, draw_cells

__all__ = ['write_png']

_SCALE = 2
"""Pixels of the picture for one unit of the drawing."""

_FINE = 2
"""Factor by which a drawing is painted larger before it is scaled down, because Pillow's lines are not antialiased."""

_STEPS = 24


def write_png(path: Path, genotype: AnyGenotype, strengths: Mapping[str, float] | None = None) -> None:
    """Writes the cells on a light background.

    Args:
        path: path of the file.
        genotype: genotype of the cells.
        strengths: probabilities to show, as for :func:`~nni_darts.report.drawing.draw_cells`.
    """
    drawing, zoom = draw_cells(genotype, strengths), _SCALE * _FINE
    colours = {role: light for role, (light, _) in COLOURS.items()}
    image = Image.new('RGB', (round(drawing.width) * zoom, round(drawing.height) * zoom), colours['background'])
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT_SIZE * zoom)

    def scaled(*points: Point) -> list[Point]:
        return [(x * zoom, y * zoom) for x, y in points]

    for shape in drawing.shapes:
        if isinstance(shape, Label):
            canvas.text(scaled((shape.x, shape.y))[0], shape.text, colours['text'], font, anchor='ls')
        elif isinstance(shape, Curve):
            canvas.line(scaled(*_line(shape)), colours['line'], round(1.4 * zoom), joint='curve')
            canvas.polygon(scaled(*shape.head()), colours['line'])
        else:
            corners = scaled((shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height))
            canvas.rounded_rectangle(corners, shape.radius * zoom, colours[shape.role], colours['line'], zoom)
            middle = scaled((shape.x + shape.width / 2, shape.y + shape.height / 2))
            canvas.text(middle[0], shape.text, colours['text'], font, anchor='mm')
    image.reduce(_FINE).save(path)


def _line(curve: Curve) -> list[Point]:
    """Returns points along a curve."""
    points, (x0, y0) = [curve.points[0]], curve.points[0]
    for (x1, y1), (x2, y2), (x3, y3) in curve.bends():
        steps = 1 if y0 == y3 else _STEPS
        for step in range(1, steps + 1):
            t = step / steps
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            points.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
        x0, y0 = x3, y3
    return points
