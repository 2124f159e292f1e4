"""Genotypes of any NNI ``ModelSpace``: the samples that freeze it, as data. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_darts.genotypes.base import AnyGenotype, checked_fields, packed, unpacked
from nni_darts.genotypes.graphs import Box, CellEdges, CellGraph, GraphBuilder

__all__ = ['CODE_PREFIX', 'SampleGenotype']

CODE_PREFIX = 'own.'
"""Prefix of the code of a sample."""

_CELL = 'choices'
_FIELDS = ('space', 'sample')


@dataclass(frozen=True)
class SampleGenotype(AnyGenotype):
    """A sample of a model space: the value of every choice by its label.

    Attributes:
        space: name of the space, as in ``space.name`` of a recipe: ``package.module:Class`` or a registered name.
        choices: (label, value) in the order of the space. A value is text, a number, true, false or null, or a tuple of
            such values if several were chosen.

    Raises:
        ValueError: for a value of another type; the message names its label.

    Example:
        ``SampleGenotype.of('ghosts:GhostNet', {'block1': 'ghost', 'inputs': [0, 2]})``
    """

    kind = 'own space'
    network = 'nni_darts.search_spaces.own:own_network'
    form = 'a sample in JSON is an object with the keys space, sample'

    space: str
    choices: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'choices', tuple((str(label), _plain(label, value)) for label, value in self.choices))

    @classmethod
    def of(cls, space: str, sample: Mapping[str, Any]) -> SampleGenotype:
        """Returns the genotype of a sample in NNI's form: label → value, or list of values."""
        return cls(space, tuple(sample.items()))

    @property
    def in_words(self) -> str:
        """The space of the genotype, for messages."""
        return f'one of {self.space}'

    @property
    def sample(self) -> dict[str, Any]:
        """The sample in NNI's form: label → value, or list of values."""
        return {label: list(value) if isinstance(value, tuple) else value for label, value in self.choices}

    def to_sample(self) -> dict[str, Any]:
        """Returns the sample that freezes the space: :attr:`sample`."""
        return self.sample

    def to_dict(self) -> dict[str, Any]:
        """Returns the name of the space and the sample."""
        return {'space': self.space, 'sample': self.sample}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SampleGenotype:
        """Reads the data of :meth:`to_dict`. Raises ValueError that says which key is missing, unknown or wrong."""
        fields = checked_fields(value, _FIELDS, 'a sample', 'the keys ' + ' and '.join(_FIELDS))
        if not isinstance(fields['space'], str) or not isinstance(fields['sample'], Mapping) or not fields['sample']:
            raise ValueError('a sample has the name of its space under space and label → value under sample')
        return cls.of(fields['space'], fields['sample'])

    def to_text(self) -> str:
        """Returns JSON, because the literature has no notation for a user's own space."""
        return self.to_json()

    def code(self) -> str:
        """Returns a reversible code, safe in NNI's metrics and URLs: ``own.`` and the deflated JSON."""
        return CODE_PREFIX + packed(self.to_dict())

    @classmethod
    def from_code(cls, code: str) -> SampleGenotype:
        """Reads the text of :meth:`code`. Raises ValueError for any other text."""
        value = unpacked(code.removeprefix(CODE_PREFIX))
        return cls.from_dict(value if isinstance(value, dict) else {})

    def edges(self) -> dict[str, list[tuple[str, str]]]:
        """Returns ``choices`` → (label, value as text) of every choice."""
        return {_CELL: [(label, _text(value)) for label, value in self.choices]}

    def all_edges(self) -> dict[str, CellEdges]:
        """Returns ``choices`` → table with a row for each choice."""
        labels = [label for label, _ in self.choices]
        rows = dict(enumerate(labels))
        return {_CELL: CellEdges('Choices', tuple((label, row, 0) for row, label in rows.items()), {0: ''}, rows=rows)}

    def graphs(self, strengths: Mapping[str, float] | None = None) -> list[CellGraph]:
        """Returns one graph, from the space to each choice and on to its value. Arguments as for :meth:`AnyGenotype.graphs`."""
        builder = GraphBuilder([Box(self.space.rpartition(':')[2], 'input')])
        for number, (label, value) in enumerate(self.choices, start=1):
            builder.state(number, label)
            builder.edges.append((0, builder.states[number]))
            for chosen in value if isinstance(value, tuple) else (value,):
                builder.leaf(_text(chosen), number, (strengths or {}).get(label))
        return [builder.finish('chosen architecture', ordered=False)]


def _plain(label: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(label, entry) for entry in value)
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    kind = type(value).__name__
    raise ValueError(f'{label}: {str(value)[:60]!r} is a {kind}; candidates must be text, numbers, true, false or null')


def _text(value: Any) -> str:
    return ', '.join(map(str, value)) if isinstance(value, tuple) else str(value)
