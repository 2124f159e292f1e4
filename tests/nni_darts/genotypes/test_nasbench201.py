from __future__ import annotations

import gzip
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nni_darts.errors import InputError
from nni_darts.genotypes.benchmark import Table, query_nats_bench
from nni_darts.genotypes.nasbench201 import EDGES, OPERATIONS, NasBench201Genotype, edge_label

PUBLISHED_TABLE = Path(__file__).parents[3].parent / 'shared' / 'data' / 'nasbench201.csv.gz'

TEXT = '|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|'
GENOTYPE = NasBench201Genotype(('nor_conv_3x3', 'none', 'avg_pool_3x3', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3'))
ALL_SKIP = NasBench201Genotype(('skip_connect',) * 6)

HEADER = 'arch_str,c10_test,c100_test'
ROWS = [f'{TEXT},91.25,70.5', f'{ALL_SKIP.to_text()},54.3,15.0']


def write(path: Path, *lines: str) -> Path:
    """A table, compressed if its name says so."""
    data = ''.join(line + '\n' for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
    return path


def test_the_four_ways_to_write_a_cell() -> None:
    assert GENOTYPE.to_text() == TEXT
    assert GENOTYPE.code() == 'nb201.304123'
    assert json.loads(GENOTYPE.to_json()) == {'nasbench201': TEXT}
    assert GENOTYPE.to_sample() == {
        'edge_1_0': 'nor_conv_3x3',
        'edge_2_0': 'none',
        'edge_2_1': 'avg_pool_3x3',
        'edge_3_0': 'skip_connect',
        'edge_3_1': 'nor_conv_1x1',
        'edge_3_2': 'nor_conv_3x3',
    }


def test_every_way_is_reversible() -> None:
    rng = random.Random(0)
    for _ in range(300):
        genotype = NasBench201Genotype.random(rng)
        assert NasBench201Genotype.from_text(genotype.to_text()) == genotype
        assert NasBench201Genotype.from_json(genotype.to_json()) == genotype
        assert NasBench201Genotype.from_sample(genotype.to_sample()) == genotype
        assert NasBench201Genotype.from_code(genotype.code()) == genotype
        assert set(genotype.code()) <= set('nb201.34')


def test_lists_and_other_labels_are_accepted() -> None:
    assert NasBench201Genotype(list(GENOTYPE.operations)) == GENOTYPE  # type: ignore[arg-type]
    assert NasBench201Genotype.from_sample({**GENOTYPE.to_sample(), 'other': 1}) == GENOTYPE
    assert NasBench201Genotype.from_text(f' {TEXT}\n') == GENOTYPE


def test_counts_operations() -> None:
    assert [GENOTYPE.count(name) for name in OPERATIONS] == [1, 1, 1, 2, 1]


def test_random_cells_are_uniform() -> None:
    """Each operation on each edge in a fifth of the cells, within five standard deviations, and edges do not depend on each other."""
    rng = random.Random(1)
    cells = [NasBench201Genotype.random(rng).operations for _ in range(5000)]
    for edge in range(6):
        for name in OPERATIONS:
            assert abs(sum(cell[edge] == name for cell in cells) - 1000) < 5 * 28.3
    assert abs(sum(cell[0] == cell[5] for cell in cells) - 1000) < 5 * 28.3
    again = random.Random(1)
    assert [NasBench201Genotype.random(again).operations for _ in range(10)] == cells[:10]


def test_a_cell_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        GENOTYPE.operations = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ('operations', 'names'),
    [
        ((), '6 names'),
        (('none',) * 5, '6 names'),
        (('none',) * 7, '6 names'),
        ('nonono', 'nonono'),
        (None, 'None'),
        (('none', 'none', 'none', 'none', 'sep_conv_3x3', 'none'), "edge 3←1: unknown operation 'sep_conv_3x3'"),
        (('none', ['none'], 'none', 'none', 'none', 'none'), 'edge 2←0'),
        ((0,) * 6, "'0'"),
    ],
)
def test_what_is_no_cell(operations: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        NasBench201Genotype(operations)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '|',
        TEXT[:-1],
        TEXT + '|',
        TEXT + TEXT,
        TEXT.replace('~2', '~1'),
        TEXT.replace('+', ''),
        TEXT.replace('none', 'None'),
        TEXT.replace('none', 'max_pool_3x3'),
        TEXT.replace('none', '__import__'),
        TEXT.replace('none~0|', ''),
        TEXT.replace('none', 'nоne'),  # a Cyrillic о
        TEXT.replace('~1', '~١'),  # an Arabic 1
        TEXT.replace('|+|', '|\n+|'),
        '__import__("os").system("true")',
        '(' * 150,
        'a' * 1_000_000,
    ],
)
def test_hostile_text_is_one_clear_error(text: str) -> None:
    with pytest.raises(ValueError) as error:
        NasBench201Genotype.from_text(text)
    assert '\n' not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('{', 'JSON'),
        ('[' * 100_000, 'JSON'),
        ('[]', 'list'),
        ('{}', 'lacks'),
        ('{"nasbench201": 1}', "'1'"),
        ('{"nasbench201": ["none", "none", "none", "none", "none", "none"]}', 'form'),
        ('{"nasbench201": "|none~0|"}', 'none~0'),
        (f'{{"nasbench201": "{TEXT}", "normal": []}}', "'normal'"),
    ],
)
def test_broken_json_is_one_clear_error(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names) as error:
        NasBench201Genotype.from_json(text)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'code', ['', 'nb201.', 'nb201.00000', 'nb201.0000000', 'nb201.000005', 'nb201.٠٠٠٠٠٠', 'nb201x000000', '000000', 'nb201.00000\n']
)
def test_broken_codes(code: str) -> None:
    with pytest.raises(ValueError, match='6 digits'):
        NasBench201Genotype.from_code(code)


def test_a_sample_without_a_label() -> None:
    for edge in EDGES:
        sample = GENOTYPE.to_sample()
        del sample[edge_label(*edge)]
        with pytest.raises(ValueError, match=edge_label(*edge)):
            NasBench201Genotype.from_sample(sample)
    with pytest.raises(ValueError, match='edge_1_0'):
        NasBench201Genotype.from_sample({})


@pytest.mark.parametrize('name', ['table.csv.gz', 'table.csv', 'misnamed.txt'])
def test_a_table(name: str, tmp_path: Path) -> None:
    table = Table.read(write(tmp_path / name, HEADER, ROWS[0], '', ROWS[1]))
    assert len(table) == 2 and table.columns == ('c10_test', 'c100_test')
    assert table.query(GENOTYPE) == {'c10_test': 91.25, 'c100_test': 70.5}
    assert table.query(ALL_SKIP) == {'c10_test': 54.3, 'c100_test': 15.0}
    with pytest.raises(InputError, match='no row for .*none~0.*2 cells'):
        table.query(NasBench201Genotype(('none',) * 6))


def test_the_column_of_cells_may_stand_anywhere_and_spreadsheets_mark_utf_8(tmp_path: Path) -> None:
    path = tmp_path / 'table.csv'
    path.write_bytes(f'\ufeffa,arch_str,b\r\n1,{TEXT},2.5\r\n'.encode())
    assert Table.read(str(path)).query(GENOTYPE) == {'a': 1.0, 'b': 2.5}
    assert list(Table.read(str(path))) == [GENOTYPE]
    path.write_bytes(f'\ufeffarch_str,a\n{TEXT},1\n'.encode())
    assert Table.read(path).query(GENOTYPE) == {'a': 1.0}


@pytest.mark.parametrize(
    ('lines', 'names'),
    [
        ([], "no column 'arch_str'"),
        (['version https://git-lfs.github.com/spec/v1'], "no column 'arch_str'"),
        (['arch,c10_test', ROWS[0]], "no column 'arch_str'"),
        (['arch_str,c10_test,c10_test', ROWS[0]], 'once'),
        ([HEADER, ROWS[1], f'{TEXT},high,70'], "line 3: c10_test must be a number, not 'high'"),
        ([HEADER, f'{TEXT},90,'], "line 2: c100_test must be a number, not ''"),
        ([HEADER, f'{TEXT},90,nan'], "c100_test must be a number, not 'nan'"),
        ([HEADER, f'{TEXT},90'], 'line 2: 2 values for 3 columns'),
        ([HEADER, f'{TEXT},90,70,50'], '4 values'),
        ([HEADER, 'cell,90,70'], "line 2: 'cell' is not of the form"),
        ([HEADER, ROWS[0], ROWS[1], ROWS[0]], 'line 4: .* is listed twice'),
    ],
)
@pytest.mark.parametrize('name', ['table.csv', 'table.csv.gz'])
def test_wrong_tables(lines: list[str], names: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=names) as error:
        Table.read(write(tmp_path / name, *lines))
    assert '\n' not in str(error.value) and name in str(error.value)


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'binary', 'magic', 'long'])
def test_files_that_are_no_tables(damage: str, tmp_path: Path) -> None:
    path = write(tmp_path / 'table.csv.gz', HEADER, *ROWS)
    data = path.read_bytes()
    path.write_bytes(
        {
            'cut': data[:-20],
            'flipped': data[:30] + bytes([data[30] ^ 0xFF]) + data[31:],
            'binary': bytes(range(128, 256)),
            'magic': b'\x1f\x8b',
            'long': b'arch_str,' + b'x' * 200_000,
        }[damage]
    )
    with pytest.raises(InputError, match='neither a CSV file nor one compressed with gzip') as error:
        Table.read(path)
    assert '\n' not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='there is no table .*missing.csv'):
        Table.read(tmp_path / 'missing.csv')
    with pytest.raises(InputError, match='cannot read the table'):
        Table.read(tmp_path)


@pytest.mark.skipif(not PUBLISHED_TABLE.is_file(), reason=f'the table of NAS-Bench-201 is not at {PUBLISHED_TABLE}')
def test_the_published_table_holds_every_cell() -> None:
    table = Table.read(PUBLISHED_TABLE)
    cells = [NasBench201Genotype(operations) for operations in itertools.product(OPERATIONS, repeat=6)]
    assert len({cell.to_text() for cell in cells}) == len({cell.code() for cell in cells}) == len(table) == 15_625
    results = {cell: table.query(cell)['c10_test'] for cell in cells}
    assert round(results[ALL_SKIP], 2) == 54.30
    assert round(max(results.values()), 2) == 94.37
    assert all(0 <= value <= 100 for value in results.values())


# NATS-Bench ---------------------------------------------------------------------------------------------------------------------


class Api:
    """As much of ``nats_bench``'s API as is used, over one cell."""

    def query_index_by_arch(self, text: str) -> int:
        return 7 if text == TEXT else -1

    def get_more_info(self, index: int, dataset: str, iepoch: Any = None, hp: str = '12', is_random: bool = True) -> dict[str, float]:
        if index < 0:
            raise ValueError('Invalid\nindex')
        assert (index, hp, is_random) == (7, '200', False)
        values = {'cifar10': 94.25, 'cifar100': 73.5, 'ImageNet16-120': 47.25}
        return {'train-accuracy': 99.0, 'valtest-accuracy': 1.0, 'test-accuracy': values[dataset]}


def test_nats_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(folder: str, space: str, fast_mode: bool, verbose: bool) -> Api:
        assert (folder, space, fast_mode, verbose) == (str(tmp_path), 'tss', True, False)
        return Api()

    monkeypatch.setitem(sys.modules, 'nats_bench', SimpleNamespace(create=create))
    assert query_nats_bench(tmp_path, GENOTYPE) == {'c10_test': 94.25, 'c100_test': 73.5, 'in16_test': 47.25}
    with pytest.raises(InputError, match='cannot read NATS-Bench in .*: ValueError: Invalid index'):
        query_nats_bench(str(tmp_path), ALL_SKIP)


def test_nats_bench_without_folder_or_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'nats_bench', None)  # as if it were not installed
    with pytest.raises(InputError, match='pip install nats_bench'):
        query_nats_bench(tmp_path, GENOTYPE)
    with pytest.raises(InputError, match='there is no folder .*missing'):
        query_nats_bench(tmp_path / 'missing', GENOTYPE)


def test_imports_no_torch() -> None:
    """NNI's tuner imports it."""
    code = "import sys, nni_darts.genotypes.nasbench201; sys.exit('torch' in sys.modules or 'nni' in sys.modules)"
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code]).returncode == 0
