"""The recipe's section ``latency``, and files with the latency of each operation. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from nni_darts.errors import InputError
from nni_darts.files import write_text
from nni_darts.genotypes.costs import DECIMALS
from nni_darts.genotypes.space import Positive, Section
from nni_darts.recipes.loading import error_sentence, load_yaml

__all__ = ['EdgeShape', 'LatencySettings', 'LatencyTable', 'Milliseconds', 'milliseconds']


_SHAPE = re.compile(r'([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})(/2)?')


def _milliseconds(value: Any) -> float:
    number: Any = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1_000_000:
        raise ValueError(f'must be a number of milliseconds, such as 4.5; it is {str(value)[:40]!r}')
    return round(float(number), DECIMALS)


def milliseconds(value: Any) -> float:
    """Returns a number of milliseconds above 0 from a number or text, rounded down to six decimals, so that a limit is never raised.

    Raises:
        ValueError: for anything else.
    """
    _milliseconds(value)
    number = Decimal(str(value).strip()).quantize(Decimal(1).scaleb(-DECIMALS), ROUND_DOWN)
    if not number:
        raise ValueError(f'must be above 0 milliseconds; it is {value!r}')
    return float(number)


FromZero = Annotated[float, BeforeValidator(_milliseconds)]
Milliseconds = Annotated[float, BeforeValidator(milliseconds)]


class EdgeShape(NamedTuple):
    """The shape (channels, height, width) of the state that an operation on an edge reads, and the stride of the operation.

    Example:
        >>> str(EdgeShape(32, 8, 8, 2)), EdgeShape.parse('32x8x8/2').stride
        ('32x8x8/2', 2)
    """

    channels: int
    height: int
    width: int
    stride: int = 1

    def __str__(self) -> str:
        return f'{self.channels}x{self.height}x{self.width}' + ('/2' if self.stride == 2 else '')

    @property
    def in_words(self) -> str:
        """A description for messages."""
        return f'{self.channels} channels of {self.height}×{self.width} pixels and stride {self.stride} ({self})'

    @classmethod
    def parse(cls, text: Any) -> EdgeShape:
        """Reads ``CHANNELSxHEIGHTxWIDTH``, with ``/2`` for stride 2. Raises ValueError for anything else."""
        match = _SHAPE.fullmatch(str(text))
        if match is None:
            raise ValueError(f'{str(text)[:40]!r} is no shape; write CHANNELSxHEIGHTxWIDTH of the input, and /2 for stride 2: 32x8x8/2')
        return cls(int(match[1]), int(match[2]), int(match[3]), 2 if match[4] else 1)


def _by_shape(value: Any) -> Any:
    if isinstance(value, Mapping):
        for shape in value:
            EdgeShape.parse(shape)
    return value


_OfOperation = Annotated[dict[str, FromZero], BeforeValidator(_by_shape)]


class LatencyTable(Section):
    """The latency of each operation at each shape, from which the latency of every network of a space is predicted.

    The prediction is ``fixed_ms`` plus the latency of each operation on an edge, at the shape that it has in each cell.

    Attributes:
        operations_ms: operation → shape, as :class:`EdgeShape` writes it → milliseconds for one batch.
        fixed_ms: milliseconds of all other parts of the network: stem, preprocessing, sums, concatenation, classifier.
        spread_ms: the interquartile ranges of the measurements of ``operations_ms``.
        fixed_spread_ms: the interquartile range of ``fixed_ms`` over several networks.
        network: sizes of the network that ``fixed_ms`` belongs to; None does not check them.
        batch: number of images at a time.
        threads: number of threads.
        processor: name of the processor.
        software: the program that computed, and its version.
        date: when it was measured.

    Example:
        ``LatencyTable.read('latency.yml').of('sep_conv_3x3', EdgeShape(16, 8, 8))``
    """

    batch: Positive = 1
    threads: Positive | None = None
    processor: str | None = None
    software: str | None = None
    date: Annotated[str | None, BeforeValidator(lambda value: value if value is None else str(value))] = None
    network: dict[str, Any] | None = None
    fixed_ms: FromZero
    fixed_spread_ms: FromZero | None = None
    operations_ms: dict[str, _OfOperation]
    spread_ms: dict[str, _OfOperation] | None = None

    @classmethod
    def read(cls, path: str | Path) -> LatencyTable:
        """Reads a file.

        Raises:
            ValueError: if it cannot be read or holds no table; the message names the file.
        """
        try:
            text = Path(path).read_text('utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f'cannot read {path}: {getattr(error, "strerror", None) or error}') from None
        values = load_yaml(text, str(path))
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ValueError(f'{path} holds no table of latencies, which is a mapping with operations_ms and fixed_ms')
        try:
            return cls(**values)
        except ValidationError as error:
            raise ValueError(f'{path}: {error_sentence(error, cls)}') from None

    def write(self, path: Path) -> None:
        """Writes the table as a YAML file."""
        values = {name: value for name, value in self.model_dump(mode='json').items() if value is not None}
        text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True, width=130)
        head = '# Milliseconds of each operation at each CHANNELSxHEIGHTxWIDTH of its input (/2: with stride 2), and of all other parts.\n'
        write_text(path, head + text)

    def of(self, operation: str, shape: EdgeShape) -> float | None:
        """Returns the milliseconds of an operation at a shape; None if the table lacks them."""
        return self.operations_ms.get(operation, {}).get(str(shape))

    def check(self, needed: Iterable[tuple[str, EdgeShape]], network: Mapping[str, Any], source: str) -> None:
        """Checks that the table has everything from which the networks of a space are predicted.

        Args:
            needed: operations at their shapes.
            network: sizes of the network.
            source: name of the table for the message.

        Raises:
            InputError: if an operation or a shape is missing, or ``fixed_ms`` belongs to another network.
        """
        missing = [(operation, shape) for operation, shape in dict.fromkeys(needed) if self.of(operation, shape) is None]
        advice = 'add it, or measure a whole table with nni-darts latency'
        if missing:
            operation, shape = missing[0]
            more = f', and {len(missing) - 1} more are missing' if len(missing) > 1 else ''
            raise InputError(f'{source} has no latency of {operation} for {shape.in_words}, which the space needs{more}; {advice}')
        for name, value in (self.network or {}).items():
            if name in network and network[name] != value:
                raise InputError(
                    f'{source}: fixed_ms is that of a network with {name} {value}, and the network to retrain has {network[name]}; '
                    'measure again with nni-darts latency'
                )


def _read(value: Any) -> Any:
    return LatencyTable.read(value) if isinstance(value, (str, Path)) else value


class LatencySettings(Section):
    """The source of the latencies of operations, if ``limits`` or ``search.penalty`` have ``latency_ms``.

    ``table`` is the path of a file (:class:`LatencyTable`). ``measured`` measures them on this machine's processor with the named program,
    for ``batch`` images at a time on ``threads`` threads. A run keeps its table, in place of the path or beside ``measured``.
    """

    measured: Literal['torch'] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    table: Annotated[
        LatencyTable | None,
        BeforeValidator(_read),
        PlainSerializer(lambda table: None if table is None else table.model_dump(mode='json', exclude_none=True)),
    ] = None

    @model_validator(mode='before')
    @classmethod
    def _one_source(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            named = isinstance(values.get('table'), (str, Path))
            if named and any(values.get(key) is not None for key in ('measured', 'threads', 'batch')):
                raise ValueError('give either table, the path of a file, which has its own threads and batch, or measured')
            if not values.get('table') and not values.get('measured'):
                raise ValueError('needs measured: torch, or table, the path of a file')
        return values

    def with_table(self, table: LatencyTable | None) -> LatencySettings:
        """Returns the same settings with a table, or without one."""
        return self.model_copy(update={'table': table})
