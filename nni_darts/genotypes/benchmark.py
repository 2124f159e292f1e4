"""The measurements of NAS-Bench-201: the accuracy of each of its cells after training. Imports no torch."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nni_darts.errors import InputError
from nni_darts.genotypes.nasbench201 import NasBench201Genotype

__all__ = ['NATS_DATASETS', 'Table', 'query_nats_bench']


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

    def __iter__(self) -> Iterator[NasBench201Genotype]:
        return iter(self._rows)

    def query(self, genotype: NasBench201Genotype) -> dict[str, float]:
        """Returns column → value of a cell. Raises InputError if the table has no row for it."""
        if genotype not in self._rows:
            raise InputError(f'the table has no row for {genotype.to_text()}; it has {len(self)} cells of NAS-Bench-201')
        return dict(zip(self.columns, self._rows[genotype]))

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """Reads a CSV file, which may be compressed with gzip.

        The column ``arch_str`` has the benchmark's text of a cell; all other columns are numbers.

        Raises:
            InputError: if the file cannot be read, is not such a table, or lists a cell twice; the message names the line.
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
    """Looks up a cell's test accuracy after 200 epochs, averaged over seeds, in NATS-Bench (Dong et al., TPAMI 2021).

    NATS-Bench has the same cells as NAS-Bench-201. The package ``nats_bench`` loads its files, which are pickles: a pickle can run any
    code, so only use a folder that you trust.

    Args:
        folder: the unpacked ``NATS-tss-v1_0-3ffb9-simple``.
        genotype: the cell to look up.

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
        raise InputError('reading NATS-Bench requires the package nats_bench: pip install nats_bench') from None
    try:
        api = nats_bench.create(str(folder), 'tss', fast_mode=True, verbose=False)
        index = api.query_index_by_arch(genotype.to_text())
        return {
            column: float(api.get_more_info(index, dataset, hp='200', is_random=False)['test-accuracy'])
            for column, dataset in NATS_DATASETS.items()
        }
    except Exception as error:  # a file that is not such a pickle may raise anything
        raise InputError(f'cannot read NATS-Bench in {folder}: {type(error).__name__}: {" ".join(str(error).split())[:200]}') from error
