"""The cells of NAS-Bench-201 (Dong & Yang, ICLR 2020) as data. Imports no torch.

A cell has four nodes. Node 0 is its input. Every other node has an edge from each earlier node, and each of the six edges carries one
of five operations. The authors have trained all 5⁶ = 15,625 cells.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from nni_darts.genotypes.base import AnyGenotype
from nni_darts.genotypes.graphs import Box, CellEdges, CellGraph, GraphBuilder

__all__ = ['CODE_PREFIX', 'EDGES', 'OPERATIONS', 'NasBench201Genotype', 'edge_label']

OPERATIONS = ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
"""The candidates on every edge, in the benchmark's order."""

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Every edge as (node, source), in the order in which the benchmark's text lists them."""


def edge_label(node: int, source: int) -> str:
    """Returns the NNI label of the choice of operation on the edge from ``source`` to ``node``."""
    return f'edge_{node}_{source}'


def _text(operations: tuple[str, ...]) -> str:
    """Returns the benchmark's text: ``|operation~source|…`` for each node, with nodes joined by ``+``."""
    named = [(node, f'{name}~{source}|') for (node, source), name in zip(EDGES, operations)]
    return '+'.join('|' + ''.join(part for _, part in edges) for _, edges in groupby(named, key=lambda edge: edge[0]))


_FIELD = 'nasbench201'
CODE_PREFIX = 'nb201.'
_MAX_TEXT = 200  # the longest cell has 95 characters
_FORM = _text(('operation',) * len(EDGES))
_PATTERN = re.compile(re.escape(_FORM).replace('operation', '([a-z0-9_]+)'))


@dataclass(frozen=True)
class NasBench201Genotype(AnyGenotype):
    """A cell of NAS-Bench-201.

    Attributes:
        operations: names of the operations on the six ``EDGES``, in that order; ``none`` removes the edge.

    Raises:
        ValueError: for operations that do not form such a cell; the message names the offending value.
    """

    kind = 'NAS-Bench-201'
    network = 'nni_darts.search_spaces.nasbench201:nasbench201_network'
    stages = 3
    tabulated = True
    form = f'a NAS-Bench-201 genotype in JSON is an object with the key {_FIELD}'

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.operations, (list, tuple)) or len(self.operations) != len(EDGES):
            raise ValueError(f'operations must list {len(EDGES)} names, one for each edge, not {str(self.operations)[:60]!r}')
        for (node, source), name in zip(EDGES, self.operations):
            if name not in OPERATIONS:
                raise ValueError(f'edge {node}←{source}: unknown operation {str(name)[:40]!r}; known: {", ".join(OPERATIONS)}')
        object.__setattr__(self, 'operations', tuple(self.operations))

    def count(self, operation: str) -> int:
        """Returns how many edges carry an operation."""
        return self.operations.count(operation)

    # The benchmark's text -------------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """Returns the text as the benchmark prints it: ``|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|none~2|``."""
        return _text(self.operations)

    @classmethod
    def from_text(cls, text: str) -> NasBench201Genotype:
        """Reads the text of :meth:`to_text`. Raises ValueError for any other text."""
        if len(text) > _MAX_TEXT:
            raise ValueError(f'a NAS-Bench-201 cell has fewer than {_MAX_TEXT} characters; this text has {len(text)}')
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'{text[:100]!r} is not of the form {_FORM}')
        return cls(match.groups())

    # Plain data -------------------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns the benchmark's text under the key ``nasbench201``."""
        return {_FIELD: self.to_text()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> NasBench201Genotype:
        """Reads the data of :meth:`to_dict`. Raises ValueError that says which key is missing, unknown or wrong."""
        for key in value:
            if key != _FIELD:
                raise ValueError(f'a NAS-Bench-201 genotype has no field {str(key)[:40]!r}; it has the key {_FIELD}')
        if _FIELD not in value:
            raise ValueError(f'the genotype lacks {_FIELD!r}')
        if not isinstance(value[_FIELD], str):
            raise ValueError(f'{_FIELD} must be a text of the form {_FORM}, not {str(value[_FIELD])[:60]!r}')
        return cls.from_text(value[_FIELD])

    # NNI's sample ---------------------------------------------------------------------------------------------------------------

    def to_sample(self) -> dict[str, str]:
        """Returns the NNI sample that freezes :class:`nni_darts.search_spaces.nasbench201.NasBench201Space` to this cell."""
        return {edge_label(*edge): name for edge, name in zip(EDGES, self.operations)}

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> NasBench201Genotype:
        """Returns the cell of a sample of ``NasBench201Space``. Raises ValueError if a label is missing."""
        labels = [edge_label(*edge) for edge in EDGES]
        for label in labels:
            if label not in sample:
                raise ValueError(f'the sample has no value for {label!r}')
        return cls(tuple(sample[label] for label in labels))

    # The short code -------------------------------------------------------------------------------------------------------------

    def code(self) -> str:
        """Returns a reversible code, safe in NNI's metrics, URLs and file names: ``nb201.`` and the indices in ``OPERATIONS``."""
        return CODE_PREFIX + ''.join(str(OPERATIONS.index(name)) for name in self.operations)

    @classmethod
    def from_code(cls, code: str) -> NasBench201Genotype:
        """Reads the text of :meth:`code`. Raises ValueError for any other text."""
        match = re.fullmatch(re.escape(CODE_PREFIX) + f'([0-{len(OPERATIONS) - 1}]{{{len(EDGES)}}})', code)
        if match is None:
            last = len(OPERATIONS) - 1
            raise ValueError(
                f'{code[:40]!r} is not the code of a NAS-Bench-201 cell: {CODE_PREFIX} and {len(EDGES)} digits from 0 to {last}'
            )
        return cls(tuple(OPERATIONS[int(digit)] for digit in match[1]))

    # Graph ----------------------------------------------------------------------------------------------------------------------

    def edges(self) -> dict[str, list[tuple[str, str]]]:
        """Returns ``cell`` → (label, operation) of every edge."""
        return {'cell': [(edge_label(*edge), name) for edge, name in zip(EDGES, self.operations)]}

    def all_edges(self) -> dict[str, CellEdges]:
        """Returns ``cell`` → table of the edges."""
        return {'cell': CellEdges('Cell', tuple((edge_label(node, source), node, source) for node, source in EDGES), {0: 'in'})}

    def graphs(self, strengths: Mapping[str, float] | None = None) -> list[CellGraph]:
        """Returns the graph of the cell. Arguments as for :meth:`AnyGenotype.graphs`."""
        builder = GraphBuilder([Box('in', 'input')])
        builder.state(1, '1')
        builder.state(2, '2')
        builder.state(3, 'out', 'output')
        for (node, source), name in zip(EDGES, self.operations):
            if name != 'none':
                builder.operation(name, source, node, (strengths or {}).get(edge_label(node, source)))
        return [builder.finish('NAS-Bench-201 cell')]

    @classmethod
    def random(cls, rng: random.Random) -> NasBench201Genotype:
        """Draws one of the 15,625 cells uniformly."""
        return cls(tuple(rng.choice(OPERATIONS) for _ in EDGES))
