"""The base class of all genotypes, and the helpers that their classes share. Imports no torch."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from nni_darts.genotypes.graphs import CellEdges, CellGraph
from nni_darts.genotypes.literals import literal, parsed

__all__ = [
    'AnyGenotype',
    'candidate_name',
    'checked_fields',
    'concat_text',
    'input_label',
    'is_import_path',
    'is_index',
    'json_object',
    'literature_fields',
    'operation_label',
    'operation_name',
    'packed',
    'unpacked',
]

_MAX_TEXT = 20_000  # no published genotype is a tenth as long; the limit also refuses hostile nesting
_MAX_PACKED = 1_000_000  # largest size in bytes of a packed genotype after inflation


_IMPORT_PATH = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*')


class AnyGenotype(ABC):
    """A finished architecture as plain data. Each kind of space has a class of its own, a frozen dataclass.

    Attributes:
        kind: the name of this kind of genotype in messages.
        task: the type of data that the networks read: ``images`` or ``text``.
        network: the import path ``module:function`` that builds its network: (genotype, keyword arguments) → ``nn.Module``.
        stages: number of stages into which the network's cells are divided evenly; 1 if the network has no stages.
        tabulated: whether a benchmark has measured all genotypes of this kind, so that their accuracies can be looked up.
        form: the sentence that describes the JSON of this genotype, for messages.
    """

    kind: ClassVar[str]
    task: ClassVar[str] = 'images'
    network: ClassVar[str]
    stages: ClassVar[int] = 1
    tabulated: ClassVar[bool] = False
    form: ClassVar[str]

    @property
    def in_words(self) -> str:
        """The kind of the genotype with its article, for messages."""
        return f'a {self.kind} one'

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Returns the genotype as plain data, which :meth:`from_dict` reads."""

    @classmethod
    @abstractmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Reads the data of :meth:`to_dict`. Raises ValueError that names the first wrong key or value."""

    def to_json(self) -> str:
        """Returns the genotype as a JSON object, which :meth:`from_json` reads."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads the text of :meth:`to_json`. Raises ValueError that says which key is missing, unknown or wrong."""
        return cls.from_dict(json_object(text, cls.form))

    @abstractmethod
    def to_text(self) -> str:
        """Returns the genotype as the literature prints it."""

    @abstractmethod
    def code(self) -> str:
        """Returns the short, reversible text that stands for the genotype in NNI's metrics, URLs and file names."""

    def edges(self) -> dict[str, list[tuple[str, str]]]:
        """Returns cell → (label, operation) pairs of all chosen operations, in the genotype's order; empty if it has no choices."""
        return {}

    def all_edges(self) -> dict[str, CellEdges]:
        """Returns cell → table of all choices in the genotype's search space."""
        return {}

    def graphs(self, strengths: Mapping[str, float] | None = None) -> list[CellGraph]:
        """Returns the graphs to draw; empty if there is nothing to draw.

        Args:
            strengths: label of the choice on an edge → probability of the operation that was chosen there.
        """
        return []

    def strengths(self, probabilities: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Returns label → probability of the genotype's operation at that label.

        Args:
            probabilities: label → operation → probability, as a search records them after each epoch.
        """
        kept = (edge for edges in self.edges().values() for edge in edges)
        return {label: probabilities[label][name] for label, name in kept if name in probabilities.get(label, ())}


# Labels -------------------------------------------------------------------------------------------------------------------------------


def input_label(kind: str, state: int) -> str:
    """Returns NNI's label of the choice of inputs of the node that computes ``state`` (2, 3, …; 0 and 1 are the cell's inputs)."""
    return f'{kind}_input_{state}'


def operation_label(kind: str, state: int, source: int) -> str:
    """Returns NNI's label of the choice of operation on the edge from state ``source`` to state ``state``."""
    return f'{kind}_op_{state}_{source}'


def candidate_name(operation: str) -> str:
    """Returns an operation's name in NNI's ``LayerChoice``, where the name of a module must not contain a dot."""
    return operation.replace('.', '/')


def operation_name(candidate: str) -> str:
    """Returns the operation's name from the name of a candidate: the inverse of :func:`candidate_name`."""
    return candidate.replace('/', '.')


# Text -----------------------------------------------------------------------------------------------------------------------------------


def json_object(text: str, form: str) -> dict[str, Any]:
    """Parses a JSON object. Raises ValueError for anything else; ``form`` is the sentence that describes the expected JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'this genotype is not valid JSON: {error}') from None
    if not isinstance(value, dict):
        raise ValueError(f'{form}, not {type(value).__name__}')
    return value


def literature_fields(text: str, form: str, order: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of ``Genotype(…)`` or ``NAME = Genotype(…)``, as papers and logs print them. Nothing is evaluated.

    Fields of other programs that are None or empty do not describe the cell and are left out.

    Args:
        text: the printed genotype.
        form: the expected form of the text, for the message.
        order: names of the fields, in the order of positional arguments.

    Raises:
        ValueError: for anything but a call of ``Genotype`` with literal arguments.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError(f'a genotype has fewer than {_MAX_TEXT} characters; this text has {len(text)}')
    try:
        body = parsed(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f'this text is not of the form {form}') from None
    call = body[0].value if len(body) == 1 and isinstance(body[0], (ast.Expr, ast.Assign)) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, (ast.Name, ast.Attribute)) or len(call.args) > len(order):
        raise ValueError(f'this text is not of the form {form}')
    if (call.func.id if isinstance(call.func, ast.Name) else call.func.attr) != 'Genotype':
        raise ValueError('the text must call Genotype(…), nothing else')
    named = [*zip(order, call.args), *((str(keyword.arg), keyword.value) for keyword in call.keywords)]
    values = {name: literal(value) for name, value in named}
    return {name: value for name, value in values.items() if name in order or value not in (None, (), '')}


def concat_text(concat: Sequence[int]) -> str:
    """Returns a concat as DARTS prints it: ``range(2, 6)``, or a list if the states are not consecutive."""
    is_range = tuple(concat) == tuple(range(concat[0], concat[-1] + 1))
    return f'range({concat[0]}, {concat[-1] + 1})' if is_range else str(list(concat))


def checked_fields(value: Mapping[str, Any], fields: Sequence[str], genotype: str, listed: str) -> dict[str, Any]:
    """Returns plain data as a dict after checking that it has exactly these fields.

    Args:
        value: plain data.
        fields: the names of the fields.
        genotype: name of the genotype with its article, for the message.
        listed: list of the fields, for the message.

    Raises:
        ValueError: if a field is unknown or missing; the message names the first one.
    """
    extra = [key for key in value if key not in fields]
    if extra and fields[0] in value:
        raise ValueError(f'this is a cell of another space, with {", ".join(str(key)[:40] for key in extra)}: {genotype} has {listed}')
    for key in value:
        if key not in fields:
            raise ValueError(f'{genotype} has no field {str(key)[:40]!r}; it has {listed}')
    for key in fields:
        if key not in value:
            raise ValueError(f'the genotype lacks {key!r}; it needs {listed}')
    return dict(value)


def is_index(value: Any) -> bool:
    """Returns whether a value is an integer, and not True or False."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_import_path(name: Any) -> bool:
    """Returns whether a value has the form ``package.module:Name``, by which users name their own code."""
    return isinstance(name, str) and _IMPORT_PATH.fullmatch(name) is not None


# Codes ----------------------------------------------------------------------------------------------------------------------------------


def packed(value: Any) -> str:
    """Returns plain data as deflated JSON in base64url: a text of letters, digits, ``-`` and ``_``."""
    text = json.dumps(value, separators=(',', ':'))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip('=')


def unpacked(text: str) -> Any:
    """Reads the text of :func:`packed`. Raises ValueError for any other text."""
    try:
        content = base64.b64decode(text.encode('ascii') + b'=' * (-len(text) % 4), altchars=b'-_', validate=True)
        inflater = zlib.decompressobj()
        plain = inflater.decompress(content, _MAX_PACKED)
        if not inflater.eof or inflater.unused_data:
            raise ValueError('too long, or cut')
        return json.loads(plain)
    except (UnicodeError, binascii.Error, zlib.error, ValueError, RecursionError):
        raise ValueError(f'{text[:40]!r} is not a packed genotype') from None
