"""Cells as pictures: what is in a genotype is in its drawing, and no two things stand on top of each other."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nni_darts import PUBLISHED, Genotype
from nni_darts.cli import main
from nni_darts.genotypes import AnyGenotype, genotype_from_code
from nni_darts.report.drawing import Curve, Rectangle, cell_svg, draw_cells
from nni_darts.report.png import write_png

CELLS = {
    **PUBLISHED,
    'one node': Genotype(normal=(('noise', 0), ('skip_connect', 0)), normal_concat=(2,), reduce=(('none', 1),) * 2, reduce_concat=(2,)),
    'nasbench201': genotype_from_code('nb201.313021'),
    'nothing but none': genotype_from_code('nb201.000000'),
}


@pytest.fixture(params=CELLS.values(), ids=CELLS)
def genotype(request: pytest.FixtureRequest) -> AnyGenotype:
    return request.param


def test_every_operation_is_between_its_states(genotype: AnyGenotype) -> None:
    """Read back from the graph: (operation, where it comes from, where it goes)."""
    found = Counter()
    for graph in genotype.graphs():
        into = {target: source for source, target in graph.edges}
        behind = dict(graph.edges)
        for index, box in enumerate(graph.boxes):
            if box.role not in ('input', 'state', 'output'):
                found[graph.title, box.text, graph.boxes[into[index]].text, graph.boxes[behind[index]].text] += 1
    wanted = Counter()
    titles = {'normal': 'normal cell', 'reduce': 'reduction cell', 'recurrent': 'recurrent cell', 'cell': 'NAS-Bench-201 cell'}
    for kind, edges in genotype.edges().items():
        for label, name in edges:
            state, source = map(int, label.split('_')[-2:])
            if name == 'none' and kind != 'recurrent':
                continue
            if kind == 'cell':
                names = {0: 'in', 3: 'out'}
            else:
                names = {} if kind == 'recurrent' else {0: 'c_{k-2}', 1: 'c_{k-1}', **{node: str(node - 2) for node in range(2, 9)}}
            wanted[titles[kind], name, names.get(source, str(source)), names.get(state, str(state))] += 1
    assert found == wanted


def test_nothing_overlaps_and_arrows_go_forward(genotype: AnyGenotype) -> None:
    drawing = draw_cells(genotype)
    boxes = [shape for shape in drawing.shapes if isinstance(shape, Rectangle)]
    for one, other in itertools.combinations(boxes, 2):
        apart = (
            one.x + one.width <= other.x
            or other.x + other.width <= one.x
            or one.y + one.height <= other.y
            or other.y + other.height <= one.y
        )
        assert apart, (one, other)
    for curve in (shape for shape in drawing.shapes if isinstance(shape, Curve)):
        assert [x for x, _ in curve.points] == sorted(x for x, _ in curve.points)
        # Where an arrow passes a layer without ending there it runs level: no box of that layer may be in its way.
        for (x0, y0), (x1, _) in zip(curve.points[1::2], curve.points[2:-1:2]):
            assert not any(box.y < y0 < box.y + box.height and box.x < x1 and x0 < box.x + box.width for box in boxes)
    assert max(box.x + box.width for box in boxes) < drawing.width and max(box.y + box.height for box in boxes) < drawing.height


@pytest.mark.parametrize('seed', range(40))
def test_nodes_stand_in_their_order(seed: int) -> None:
    """Inputs from the top down, nodes from left to right: drawings can be compared."""
    boxes = [shape for shape in draw_cells(Genotype.random(random.Random(seed))).shapes if isinstance(shape, Rectangle)]
    for cell in (boxes[: len(boxes) // 2], boxes[len(boxes) // 2 :]):
        first, second = (box for box in cell if box.role == 'input')
        assert (first.text, second.text) == ('c_{k-2}', 'c_{k-1}') and first.y < second.y
        nodes = sorted((box for box in cell if box.role == 'state'), key=lambda box: box.x)
        assert [box.text for box in nodes] == ['0', '1', '2', '3']
        assert all(one.x + one.width <= other.x for one, other in itertools.pairwise(nodes))


def test_svg_and_png_can_be_read(genotype: AnyGenotype, tmp_path: Path) -> None:
    root = ElementTree.fromstring(cell_svg(genotype))
    width, height = int(root.get('width', 0)), int(root.get('height', 0))
    assert {graph.title for graph in genotype.graphs()} <= {element.text for element in root.iter() if element.text}
    write_png(tmp_path / 'cell.png', genotype)
    with Image.open(tmp_path / 'cell.png') as image:
        assert image.size == (2 * width, 2 * height)
        assert len(image.getcolors(1_000_000)) > 20


def test_strengths_stand_in_the_operations() -> None:
    genotype = PUBLISHED['DARTS_V2']
    labels = [label for cell in genotype.all_edges().values() for label, _, _ in cell.edges]
    assert len(labels) == len(set(labels)) == 28
    probabilities = {label: {'sep_conv_3x3': 0.25, 'none': 0.75} for label in labels}
    strengths = genotype.strengths(probabilities)
    assert len(strengths) == 5 and set(strengths.values()) == {0.25}
    assert cell_svg(genotype, strengths).count('sep_conv_3x3 0.25</text>') == 5


def test_the_same_picture_in_every_process() -> None:
    code = 'from nni_darts import PUBLISHED; from nni_darts.report.drawing import cell_svg; print(cell_svg(PUBLISHED["NASNet-A"]), end="")'
    for hashing in ('1', '2'):
        done = subprocess.run([sys.executable, '-c', code], env={'PYTHONHASHSEED': hashing}, capture_output=True, text=True)
        assert done.stdout == cell_svg(PUBLISHED['NASNet-A'])


def test_the_command_and_its_mistakes(tmp_path: Path) -> None:
    def draw(*arguments: object) -> Result:
        return CliRunner().invoke(main, ['draw', *map(str, arguments)])

    done = draw('DARTS_V2', '--output', tmp_path / 'cell.svg', '--output', tmp_path / 'cell.png')
    assert done.exit_code == 0 and done.output.count('wrote') == 2
    assert (tmp_path / 'cell.svg').read_text() == cell_svg(PUBLISHED['DARTS_V2'])
    for arguments, sentence in (
        (('DARTS_V2', '--output', tmp_path / 'cell.gif'), 'cell.gif: name a file that ends in .svg or .png'),
        (('DARTS_V2', '--output', tmp_path / 'absent' / 'cell.svg'), 'there is no folder'),
        (('DARTS_V9', '--output', tmp_path / 'new.svg'), "'DARTS_V9' is not a genotype"),
        (('x' * 300, '--output', tmp_path / 'new.svg'), f"'{'x' * 100}' is not a genotype"),
    ):
        wrong = draw(*arguments)
        assert wrong.exit_code == 2 and sentence in wrong.output and len(wrong.output.splitlines()) == 1
    assert not (tmp_path / 'new.svg').exists()


QUIET = """
import logging
logging.basicConfig(level=logging.DEBUG)  # as NNI has its processes log
from nni_darts import PUBLISHED
from nni_darts.report.drawing import draw_cells
print(len(draw_cells(PUBLISHED['NASNet-A']).shapes) > 0)
"""


def test_the_layout_writes_nothing_into_logs() -> None:
    """90 lines for each drawing once hid everything else in NNI's logs."""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', QUIET], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ('True\n', '')
