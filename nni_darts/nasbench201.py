"""NAS-Bench-201 as data (Dong & Yang, ICLR 2020): its cells, and the accuracy each of them reaches once trained. No torch in here.

A cell has four nodes. Node 0 is its input, every other node has an edge from each node before it, and each of the six edges carries one
of five operations: 5⁶ = 15,625 cells, all of which the authors have trained.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import math
import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError
from nni_darts.genotype import json_object

__all__ = ['EDGES', 'NATS_DATASETS', 'OPERATIONS', 'NasBench201Genotype', 'Table', 'edge_label', 'query_nats_bench']

OPERATIONS = ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
"""The candidates on every edge, in the benchmark's order."""

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Every edge as (node, source), in the order in which the benchmark's text lists them."""


def edge_label(node: int, source: int) -> str:
    """The NNI label of the choice of operation on the edge from ``source`` to ``node``."""
    return f'edge_{node}_{source}'


def _text(operations: tuple[str, ...]) -> str:
    """The benchmark's text: ``|operation~source|…`` for each node, nodes joined by ``+``."""
    named = [(node, f'{name}~{source}|') for (node, source), name in zip(EDGES, operations)]
    return '+'.join('|' + ''.join(part for _, part in edges) for _, edges in groupby(named, key=lambda edge: edge[0]))


_FIELD = 'nasbench201'
_CODE_PREFIX = 'nb201.'
_MAX_TEXT = 200  # the longest cell has 95 characters
_FORM = _text(('operation',) * len(EDGES))
_PATTERN = re.compile(re.escape(_FORM).replace('operation', '([a-z0-9_]+)'))


@dataclass(frozen=True)
class NasBench201Genotype:
    """A cell of NAS-Bench-201.

    Attributes:
        operations: the operation on each of the six ``EDGES``, in their order; ``none`` leaves the connection out.

    Raises:
        ValueError: for anything that is not such a cell; the message names the offending value.
    """

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.operations, (list, tuple)) or len(self.operations) != len(EDGES):
            raise ValueError(f'operations must list {len(EDGES)} names, one for each edge, not {str(self.operations)[:60]!r}')
        for (node, source), name in zip(EDGES, self.operations):
            if name not in OPERATIONS:
                raise ValueError(f'edge {node}←{source}: unknown operation {str(name)[:40]!r}; known: {", ".join(OPERATIONS)}')
        object.__setattr__(self, 'operations', tuple(self.operations))

    def count(self, operation: str) -> int:
        """How many edges carry ``operation``."""
        return self.operations.count(operation)

    # the benchmark's text -------------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """As the benchmark prints it: ``|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|none~2|``."""
        return _text(self.operations)

    @classmethod
    def from_text(cls, text: str) -> NasBench201Genotype:
        """Reads :meth:`to_text`'s text. Raises ValueError for anything else."""
        if len(text) > _MAX_TEXT:
            raise ValueError(f'a NAS-Bench-201 cell has fewer than {_MAX_TEXT} characters; this text has {len(text)}')
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'{text[:100]!r} is not of the form {_FORM}')
        return cls(match.groups())

    # JSON -----------------------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """One JSON object, ``{"nasbench201": text}``, as :meth:`from_json` reads it."""
        return json.dumps({_FIELD: self.to_text()})

    @classmethod
    def from_json(cls, text: str) -> NasBench201Genotype:
        """Reads :meth:`to_json`'s text. Raises ValueError that says what is missing, unknown or wrong."""
        value = json_object(text, f'a NAS-Bench-201 genotype in JSON is an object with the key {_FIELD}')
        for key in value:
            if key != _FIELD:
                raise ValueError(f'a NAS-Bench-201 genotype has no field {key[:40]!r}; it has the key {_FIELD}')
        if _FIELD not in value:
            raise ValueError(f'the genotype lacks {_FIELD!r}')
        if not isinstance(value[_FIELD], str):
            raise ValueError(f'{_FIELD} must be a text of the form {_FORM}, not {str(value[_FIELD])[:60]!r}')
        return cls.from_text(value[_FIELD])

    # NNI's sample ---------------------------------------------------------------------------------------------------------------

    def to_sample(self) -> dict[str, str]:
        """The NNI sample that freezes :class:`nni_darts.search_spaces.nasbench201.NasBench201Space` to this cell."""
        return {edge_label(*edge): name for edge, name in zip(EDGES, self.operations)}

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> NasBench201Genotype:
        """The cell of a sample of that space. Raises ValueError if a label is missing."""
        labels = [edge_label(*edge) for edge in EDGES]
        for label in labels:
            if label not in sample:
                raise ValueError(f'the sample has no value for {label!r}')
        return cls(tuple(sample[label] for label in labels))

    # the short code -------------------------------------------------------------------------------------------------------------

    def code(self) -> str:
        """A reversible code, safe in NNI's metrics, URLs and file names: ``nb201.`` and each operation's place in ``OPERATIONS``."""
        return _CODE_PREFIX + ''.join(str(OPERATIONS.index(name)) for name in self.operations)

    @classmethod
    def from_code(cls, code: str) -> NasBench201Genotype:
        """The inverse of :meth:`code`. Raises ValueError for text that is no such code."""
        match = re.fullmatch(re.escape(_CODE_PREFIX) + f'([0-{len(OPERATIONS) - 1}]{{{len(EDGES)}}})', code)
        if match is None:
            last = len(OPERATIONS) - 1
            raise ValueError(
                f'{code[:40]!r} is not the code of a NAS-Bench-201 cell: {_CODE_PREFIX} and {len(EDGES)} digits from 0 to {last}'
            )
        return cls(tuple(OPERATIONS[int(digit)] for digit in match[1]))

    @classmethod
    def random(cls, rng: random.Random) -> NasBench201Genotype:
        """A cell drawn uniformly from all 15,625."""
        return cls(tuple(rng.choice(OPERATIONS) for _ in EDGES))


class Table:
    """The accuracies of trained cells: cell → column → accuracy in per cent.

    Args:
        columns: names of the columns.
        rows: cell → its values, in the order of ``columns``.
    """

    def __init__(self, columns: tuple[str, ...], rows: Mapping[NasBench201Genotype, tuple[float, ...]]) -> None:
        self.columns = columns
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def query(self, genotype: NasBench201Genotype) -> dict[str, float]:
        """Column → value of that cell. Raises InputError if the table lacks it."""
        if genotype not in self._rows:
            raise InputError(f'the table has no row for {genotype.to_text()}; it has {len(self)} cells of NAS-Bench-201')
        return dict(zip(self.columns, self._rows[genotype]))

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """Reads a CSV file, compressed with gzip or not: a column ``arch_str`` with the benchmark's text, all others numbers.

        Raises:
            InputError: for a file that cannot be read, that is no such table, or that lists a cell twice; the message names the line.
        """
        path = Path(path)
        try:
            # gzip's two magic bytes decide, not the file's name.
            with path.open('rb') as raw, gzip.open(raw) if raw.peek(2)[:2] == b'\x1f\x8b' else raw as file:
                return cls._parse(path, csv.reader(io.TextIOWrapper(file, 'utf-8-sig', newline='')))
        except FileNotFoundError:
            raise InputError(
                f'there is no table {path}; it must be a CSV file with a column arch_str, or one compressed with gzip'
            ) from None
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f'{path} is neither a CSV file nor one compressed with gzip: {error}') from None
        except OSError as error:
            raise InputError(f'cannot read the table {path}: {error.strerror or error}') from None

    @classmethod
    def _parse(cls, path: Path, reader: Any) -> Table:
        header: list[str] = next(reader, [])
        if 'arch_str' not in header:
            raise InputError(f"{path} has no column 'arch_str'; its first line must name the columns")
        if len(set(header)) != len(header):
            raise InputError(f'{path} must name each column once; its first line is {",".join(header)[:100]!r}')
        cell_at = header.index('arch_str')
        columns = tuple(header[:cell_at] + header[cell_at + 1 :])
        rows: dict[NasBench201Genotype, tuple[float, ...]] = {}
        for cells in reader:
            if not cells:
                continue  # an empty line
            where = f'{path}, line {reader.line_num}'
            if len(cells) != len(header):
                raise InputError(f'{where}: {len(cells)} values for {len(header)} columns')
            try:
                genotype = NasBench201Genotype.from_text(cells.pop(cell_at))
            except ValueError as error:
                raise InputError(f'{where}: {error}') from None
            if genotype in rows:
                raise InputError(f'{where}: {genotype.to_text()} is listed twice')
            rows[genotype] = tuple(_number(where, column, cell) for column, cell in zip(columns, cells))
        return cls(columns, rows)


def _number(where: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f'{where}: {column} must be a number, not {cell[:40]!r}')
    return value


NATS_DATASETS = {'c10_test': 'cifar10', 'c100_test': 'cifar100', 'in16_test': 'ImageNet16-120'}
"""Column of the table → NATS-Bench's name. Its ``cifar10`` is trained on all training images, ``cifar10-valid`` on half of them."""


def query_nats_bench(folder: str | Path, genotype: NasBench201Genotype) -> dict[str, float]:
    """Test accuracy after 200 epochs, mean of the seeds, from the files of NATS-Bench (Dong et al., TPAMI 2021): the same cells.

    The files are pickles that the package ``nats_bench`` loads: a pickle can run any code, so only use a folder that you trust.

    Args:
        folder: the unpacked ``NATS-tss-v1_0-3ffb9-simple``.

    Returns:
        ``c10_test``, ``c100_test`` and ``in16_test``, in per cent, as in the table.

    Raises:
        InputError: if the folder does not exist or cannot be read, or the package is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'there is no folder {folder}; it must be an unpacked NATS-tss-v1_0-3ffb9-simple')
    try:
        nats_bench = importlib.import_module('nats_bench')
    except ImportError:
        raise InputError('NATS-Bench is read with a package of its own: pip install nats_bench') from None
    try:
        api = nats_bench.create(str(folder), 'tss', fast_mode=True, verbose=False)
        index = api.query_index_by_arch(genotype.to_text())
        return {
            column: float(api.get_more_info(index, dataset, hp='200', is_random=False)['test-accuracy'])
            for column, dataset in NATS_DATASETS.items()
        }
    except Exception as error:  # a file that is no such pickle may raise anything
        raise InputError(f'cannot read NATS-Bench in {folder}: {type(error).__name__}: {" ".join(str(error).split())[:200]}') from error
