"""Cells as other programs write them down: what is read, as which cell, and what is refused, by what it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nni_darts import PUBLISHED, Genotype, NasBench201Genotype
from nni_darts.cli.genotypes import read_genotype
from nni_darts.errors import InputError
from nni_darts.genotypes import genotype_from_file, genotype_from_text

CELLS = Path(__file__).with_name('published_cells.tsv')
"""Cells from public repositories' genotypes.py and logs: repository, file, text without spaces."""

V2 = PUBLISHED['DARTS_V2']
TEXT = V2.to_text()
BENCHMARK_CELL = '|avg_pool_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|nor_conv_1x1~2|'


def written(form: Callable[[list], object], **more: object) -> str:
    """DARTS_V2 with its lists of edges in another form."""
    fields = {
        'normal': form(list(V2.normal)),
        'normal_concat': [2, 3, 4, 5],
        'reduce': form(list(V2.reduce)),
        'reduce_concat': [2, 3, 4, 5],
    }
    return f'Genotype({", ".join(f"{name}={value!r}" for name, value in {**fields, **more}.items())})'


def by_node(edges: list) -> list:
    return [edges[i : i + 2] for i in range(0, len(edges), 2)]


def nni_sample(number: Callable[[int], object]) -> dict[str, object]:
    sample: dict[str, object] = {'width': 16, 'depth': 8}
    for kind in ('normal', 'reduce'):
        for position, (name, source) in enumerate(V2.cell(kind)[0]):
            state, k = 2 + position // 2, position % 2
            sample |= {f'{kind}/op_{state}_{k}': name, f'{kind}/input_{state}_{k}': number(source)}
    return sample


def test_published_cells_are_read() -> None:
    rows = [line.split('\t') for line in CELLS.read_text('utf-8').splitlines()]
    refused = []
    for repository, file, text in rows:
        try:
            genotype_from_text(text)
        except ValueError as error:
            refused.append(f'{repository} {file}: {error}')
    assert len(rows) > 150
    assert not refused


@pytest.mark.parametrize(
    'text',
    [
        written(by_node),
        written(lambda edges: tuple(map(tuple, by_node(edges))), connectN=None, connects=None),
        written(lambda edges: edges, aux=[]),
        written(lambda edges: [(name, source, 0.125) for name, source in edges]),
        written(lambda edges: [[*edge, 0.5] for edge in edges]),
        TEXT.replace(', 1)', ', np.int64(1))'),
        TEXT.replace('Genotype(', 'genotypes.Genotype('),
        f'Genotype({list(V2.normal)}, range(2, 6), {list(V2.reduce)}, range(2, 6))',
        f'03/01 11:02:11 AM genotype = {PUBLISHED["DARTS_V1"].to_text()}\n03/01 11:40:02 AM genotype = {TEXT}\n03/01 valid_acc 97.24\n',
        f'a log cut off\ngenotype = {TEXT}\ngenotype = {TEXT[:200]}',
        str(nni_sample(lambda source: [source])),
        str(nni_sample(lambda source: source)).replace("'", '"'),
    ],
)
def test_other_forms_of_a_cell(text: str) -> None:
    assert genotype_from_text(text) == V2


def test_nnis_samples_of_nasbench201() -> None:
    names = {'0_1': 'conv_3x3', '0_2': 'none', '1_2': 'conv_1x1', '0_3': 'skip_connect', '1_3': 'avg_pool_3x3', '2_3': 'conv_3x3'}
    wanted = NasBench201Genotype(('nor_conv_3x3', 'none', 'nor_conv_1x1', 'skip_connect', 'avg_pool_3x3', 'nor_conv_3x3'))
    assert genotype_from_text(str(names)) == wanted
    assert genotype_from_text(str({f'cell/{label}': name for label, name in names.items()})) == wanted


def test_naslibs_numbers_name_edges_by_their_source_and_operations_in_its_own_order() -> None:
    assert genotype_from_text('(4, 0, 3, 4, 0, 3)').to_text() == BENCHMARK_CELL


CONFUSED = (
    "Genotype(normal=[('sep_3x3', 0), ('sep_3x3', 1)], normal_concat=[2], reduce=[('sep_3x3', 0), ('sep_3x3', 1)], reduce_concat=[2])"
)


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        (
            "Genotype(normal=[('a', 0, 2), ('b', 1, 2)], normal_concat=[2], reduce=[], reduce_concat=[2])",
            'graph cell.*both ends of an edge',
        ),
        ("Genotype(normal=[[('a', 0)], [('b', 1)]], normal_concat=[2], reduce=[], reduce_concat=[2])", 'graph cell.*1, 1 inputs'),
        (
            "Genotype(normal=[('a', 0), ('b', 1)], normal_concat=[2], upsampling=[('c', 0)], upsampling_concat=[2])",
            'another space.*upsampling',
        ),
        ('Genotype(normal=[], normal_concat=None, reduce=None, reduce_concat=None)', 'normal must list'),
        (CONFUSED, "'sep_3x3' is of another space"),
        ("{'matrix': [[0, 1], [0, 0]], 'ops': ['input', 'output']}", 'NAS-Bench-101'),
        ('[[("nor_conv_3x3", 0)], [("none", 1)]]', 'graph cell or a cell of another space'),
        ('(4, 0, 3, 1, 4)', 'numbering of NASLib: 0 skip_connect, 1 none'),
        ('(4, 0, 3, 1, 4, 5)', 'numbering of NASLib'),
        ("{'normal/op_2_0': 'sep_conv_3x3'}", "no value for 'normal/input_2_0'"),
        ("{'0_1': 'conv_3x3'}", "no value for '0_2'"),
        ("{'edge_1_0': 'none'}", "no value for 'edge_2_0'"),
    ],
)
def test_cells_of_other_spaces_are_refused_by_what_they_are(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        genotype_from_text(text)


FILE = f"""
import sys
raise SystemExit('this file must not be run')
A = {PUBLISHED['DARTS_V1'].to_text()}
B: Genotype = {TEXT}
LATEST = B
CELLS = {{'paper': "{TEXT}"}}
"""


@pytest.mark.parametrize('name', ['B', 'LATEST', 'paper'])
def test_a_cell_by_name_from_a_python_file_that_is_not_run(name: str, tmp_path: Path) -> None:
    path = tmp_path / 'genotypes.py'
    path.write_text(FILE)
    assert read_genotype(f'{path}:{name}') == V2


def test_which_cell_of_a_python_file_has_to_be_said() -> None:
    with pytest.raises(ValueError, match='FILE:NAME: A, B, LATEST, paper'):
        genotype_from_file(FILE)
    with pytest.raises(ValueError, match="no cell is called 'C' here; there are A, B"):
        genotype_from_file(FILE, 'C')
    assert genotype_from_file(f'ONLY = {TEXT}') == V2


def test_pasted_text_on_the_command_line() -> None:
    assert isinstance(read_genotype(TEXT), Genotype) and read_genotype(TEXT) == V2
    with pytest.raises(InputError, match='is not a genotype: this text is not of the form'):
        read_genotype('Genotype(normal=')


COMMAND = 'import sys; from nni_darts.cli import main; main(sys.argv[1:], standalone_mode=False)'


def test_a_pipe_is_drawn(tmp_path: Path) -> None:
    picture = tmp_path / 'cell.svg'
    command = [sys.executable, '-c', COMMAND, 'draw', '-', '--output', str(picture)]
    subprocess.run(command, input=f'genotype = {TEXT}', text=True, check=True, capture_output=True)
    assert '<svg' in picture.read_text('utf-8')


def test_what_python_warns_of_in_a_text_is_not_said(recwarn: pytest.WarningsRecorder) -> None:
    for text in ('Genotype(normal=[("sep_conv_3x3", 1if 2else 3)], normal_concat=1, reduce=[], reduce_concat=2)', r'["\d", 1if 2else 3]'):
        with pytest.raises(ValueError, match='[gG]enotype'):
            genotype_from_text(text)
    assert not recwarn.list
