"""Pairs of convolutional cells, as in NASNet, AmoebaNet and DARTS, as data. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni_darts.errors import did_you_mean
from nni_darts.genotypes.base import (
    AnyGenotype,
    candidate_name,
    checked_fields,
    concat_text,
    input_label,
    is_import_path,
    is_index,
    literature_fields,
    operation_label,
    operation_name,
    packed,
    unpacked,
)
from nni_darts.genotypes.graphs import Box, CellEdges, CellGraph, GraphBuilder
from nni_darts.genotypes.literals import flat_edges

__all__ = ['DARTS_OPERATIONS', 'KINDS', 'OPERATION_NAMES', 'Genotype', 'check_operation', 'strongest_edges']

DARTS_OPERATIONS = (
    'none',
    'max_pool_3x3',
    'avg_pool_3x3',
    'skip_connect',
    'sep_conv_3x3',
    'sep_conv_5x5',
    'dil_conv_3x3',
    'dil_conv_5x5',
)
"""The candidates of the DARTS CNN cell in the order of the paper (Liu et al., ICLR 2019, section 3.1)."""

OPERATION_NAMES = (*DARTS_OPERATIONS, 'sep_conv_7x7', 'conv_7x1_1x7', 'noise')
"""All operations of this package: the DARTS candidates, the operations of NASNet and AmoebaNet cells, and S4's noise."""

KINDS = ('normal', 'reduce')
"""The two kinds of cell, in the order in which a genotype lists them."""

CODE_PREFIX = 'cell.'
"""Prefix of the code of a cell pair that has no short code."""

_INPUTS_PER_NODE = 2
_CELL_INPUTS = 2

Edge = tuple[str, int]
Operations = Sequence[str] | Mapping[str, Sequence[Sequence[str]]]


def check_operation(name: Any) -> None:
    """Raises ValueError unless a name is that of an operation of this package or has the form ``package.module:Class``."""
    if name not in OPERATION_NAMES and not is_import_path(name):
        name, hint = str(name)[:40], did_you_mean(name, OPERATION_NAMES)
        raise ValueError(f'unknown operation {name!r}{hint}; known: {", ".join(OPERATION_NAMES)}, or your own as package.module:Class')


def strongest_edges(probabilities: Sequence[Mapping[str, float]], keep: int) -> list[Edge]:
    """Discretises one node (Liu et al., section 2.4): the ``keep`` strongest incoming edges, each with its best operation.

    The strength of an edge is the largest probability among its operations other than ``none``. The probabilities come from a
    softmax over *all* candidates, ``none`` included; ranking by unnormalised α would pick other edges in most cells.

    Args:
        probabilities: operation name → probability for each incoming edge, in the order of the source states.
        keep: number of edges to keep.

    Returns:
        ``keep`` pairs (operation, index of the edge), strongest first; ties keep the first edge and the first operation.
    """
    if not 1 <= keep <= len(probabilities):
        raise ValueError(f'cannot keep {keep} of {len(probabilities)} edges')
    best = []
    for index, edge in enumerate(probabilities):
        candidates = {name: value for name, value in edge.items() if name != 'none'}
        if not candidates:
            raise ValueError(f"edge {index} has no operation besides 'none' to keep")
        name = max(candidates, key=candidates.__getitem__)
        best.append((candidates[name], name, index))
    best.sort(key=lambda entry: -entry[0])  # stable
    return [(name, index) for _, name, index in best[:keep]]


@dataclass(frozen=True)
class Genotype(AnyGenotype):
    """A normal and a reduction cell in the format of the literature: two ``(operation, input)`` pairs for each node, node by node.

    Inputs 0 and 1 are the outputs of the two preceding cells; input ``2 + i`` is node ``i`` of the same cell. A node adds up its two
    edges; a cell concatenates the states listed in its ``concat``.

    Raises:
        ValueError: for fields that do not describe such a pair; the message names the offending value.
    """

    kind = 'convolutional'
    network = 'nni_darts.search_spaces.cnn:Network'
    form = 'a genotype in JSON is an object with the keys normal, normal_concat, reduce, reduce_concat'

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for kind in KINDS:
            object.__setattr__(self, kind, _checked_edges(kind, getattr(self, kind)))
            object.__setattr__(self, f'{kind}_concat', _checked_concat(kind, getattr(self, f'{kind}_concat'), len(getattr(self, kind))))

    @property
    def nodes(self) -> int:
        """The number of intermediate nodes of the normal cell."""
        return len(self.normal) // _INPUTS_PER_NODE

    def cell(self, kind: str) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
        """Returns the edges and the concat of a cell; ``kind`` is ``normal`` or ``reduce``."""
        if kind not in KINDS:
            raise ValueError(f'unknown kind of cell {kind!r}; known: {", ".join(KINDS)}')
        return getattr(self, kind), getattr(self, f'{kind}_concat')

    def node_edges(self, kind: str) -> list[tuple[Edge, ...]]:
        """Returns the edges of a cell, node by node; ``kind`` is ``normal`` or ``reduce``."""
        edges, _ = self.cell(kind)
        return [edges[i : i + _INPUTS_PER_NODE] for i in range(0, len(edges), _INPUTS_PER_NODE)]

    def count(self, operation: str, kind: str = 'normal') -> int:
        """Returns how many edges of a cell have an operation; ``kind`` is ``normal`` or ``reduce``."""
        return sum(name == operation for name, _ in self.cell(kind)[0])

    # Plain data -------------------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns the four fields as plain data."""
        return {
            'normal': [list(edge) for edge in self.normal],
            'normal_concat': list(self.normal_concat),
            'reduce': [list(edge) for edge in self.reduce],
            'reduce_concat': list(self.reduce_concat),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Genotype:
        """Reads the data of :meth:`to_dict`. Raises ValueError that says which field is missing, unknown or wrong."""
        return cls(**checked_fields(value, _FIELDS, 'a genotype', _FIELD_TEXT))

    # The literature's text ------------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """Returns the text as DARTS prints it: ``Genotype(normal=[('sep_conv_3x3', 1), …], normal_concat=range(2, 6), reduce=…)``."""
        parts = []
        for kind in KINDS:
            edges, concat = self.cell(kind)
            parts += [f'{kind}={list(edges)!r}', f'{kind}_concat={concat_text(concat)}']
        return f'Genotype({", ".join(parts)})'

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Reads ``Genotype(normal=[…], normal_concat=range(2, 6), …)`` as papers and logs print it; ``NAME = Genotype(…)`` too.

        The text is parsed, never evaluated. Raises ValueError for anything but a call of ``Genotype`` with literal arguments.
        """
        return cls.from_dict(literature_fields(text, 'Genotype(normal=[…], normal_concat=…, reduce=[…], reduce_concat=…)', _FIELDS))

    # NNI's sample ---------------------------------------------------------------------------------------------------------------

    def to_sample(self, operations: Operations = DARTS_OPERATIONS) -> dict[str, Any]:
        """Returns the NNI sample that freezes :class:`nni_darts.search_spaces.DartsSpace` to this genotype.

        NNI requires a value for every label, so an edge that is not chosen gets the first operation; it is not built.

        Args:
            operations: names of the candidates on every edge, or a table of them (kind of cell → edge by edge).

        Raises:
            ValueError: if the cell lies outside the space: an operation that is not a candidate, the same input twice in a node, or a
                concat that leaves out nodes (NASNet-A and AmoebaNet-A are such cells; ``network_from_genotype`` builds them).
        """
        sample: dict[str, Any] = {}
        for kind in KINDS:
            _, concat = self.cell(kind)
            nodes = self.node_edges(kind)
            if concat != _full_concat(len(nodes)) or len(nodes) != self.nodes:
                raise ValueError(f'the {kind} cell concatenates {list(concat)}: not a cell of the DARTS space, where every node is')
            for state, edges in enumerate(nodes, start=_CELL_INPUTS):
                chosen = dict((source, name) for name, source in edges)
                if len(chosen) != len(edges):
                    raise ValueError(f'node {state} of the {kind} cell uses input {edges[0][1]} twice: not a cell of the DARTS space')
                sample[input_label(kind, state)] = sorted(chosen)
                for source in range(state):
                    names = _on_edge(operations, kind, state, source)
                    name = chosen.get(source, names[0])
                    if name not in names:
                        raise ValueError(f'operation {name!r} is not a candidate of this space; candidates: {", ".join(names)}')
                    sample[operation_label(kind, state, source)] = candidate_name(name)
        return sample

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> Genotype:
        """Returns the genotype of a sample of :class:`DartsSpace`. Raises ValueError if a label is missing."""
        cells: dict[str, tuple[Any, ...]] = {}
        for kind in KINDS:
            edges: list[Edge] = []
            state = _CELL_INPUTS
            while input_label(kind, state) in sample:
                for source in sorted(sample[input_label(kind, state)]):
                    label = operation_label(kind, state, source)
                    if label not in sample:
                        raise ValueError(f'the sample has no value for {label!r}')
                    edges.append((operation_name(sample[label]), source))
                state += 1
            if not edges:
                raise ValueError(f'the sample has no value for {input_label(kind, _CELL_INPUTS)!r}: not a sample of DartsSpace')
            cells[kind] = tuple(edges)
            cells[f'{kind}_concat'] = _full_concat(state - _CELL_INPUTS)
        return cls(**cells)

    # The short code -------------------------------------------------------------------------------------------------------------

    def code(self) -> str:
        """Returns a reversible code, safe in NNI's metrics, URLs and file names: four characters a node, 16 for the DARTS cells.

        Each edge takes 3 bits for the operation (its place in ``DARTS_OPERATIONS``) and 3 for the input; base64url. In S4, whose
        ``noise`` takes the place of ``none``, an ``n`` follows. Cells that do not fit (other operations, more than 6 nodes, a partial
        concat) have a longer code: ``cell.`` and the deflated JSON.
        """
        bits = 0
        noisy = any(self.count('noise', kind) for kind in KINDS)
        names = _NOISY_OPERATIONS if noisy else DARTS_OPERATIONS
        for kind in KINDS:
            edges, concat = self.cell(kind)
            fits = len(edges) == len(self.normal) and concat == _full_concat(self.nodes) and self.nodes <= _MAX_CODE_NODES
            if not fits or any(name not in names for name, _ in edges):
                return CODE_PREFIX + packed(self.to_dict())
            for name, source in edges:
                bits = bits << 6 | names.index(name) << 3 | source
        return base64.urlsafe_b64encode(bits.to_bytes(3 * self.nodes, 'big')).decode() + ('n' if noisy else '')

    @classmethod
    def from_code(cls, code: str) -> Genotype:
        """Reads :meth:`code`. Raises ValueError for any other text."""
        if code.startswith(CODE_PREFIX):
            value = unpacked(code.removeprefix(CODE_PREFIX))
            return cls.from_dict(value if isinstance(value, dict) else {})
        noisy = len(code) % 4 == 1 and code.endswith('n')
        names = _NOISY_OPERATIONS if noisy else DARTS_OPERATIONS
        try:
            raw = base64.b64decode(code[: len(code) - noisy].encode('ascii'), altchars=b'-_', validate=True)
        except (UnicodeEncodeError, binascii.Error, ValueError):
            raw = b''
        nodes, rest = divmod(len(raw), 3)
        if rest or not 1 <= nodes <= _MAX_CODE_NODES or '=' in code:
            raise ValueError(f'{code[:40]!r} is not the code of a genotype: four characters of A–Z, a–z, 0–9, - and _ for each node')
        bits = int.from_bytes(raw, 'big')
        edges = []
        for shift in range(24 * nodes - 6, -1, -6):
            word = bits >> shift & 0o77
            edges.append((names[word >> 3], word & 0o7))
        half = len(edges) // 2
        concat = _full_concat(nodes)
        return cls(normal=tuple(edges[:half]), normal_concat=concat, reduce=tuple(edges[half:]), reduce_concat=concat)

    # Graphs ---------------------------------------------------------------------------------------------------------------------

    def edges(self) -> dict[str, list[tuple[str, str]]]:
        """Returns kind of cell → (label, operation) of every edge."""
        return {
            kind: [
                (operation_label(kind, state, source), name)
                for state, edges in enumerate(self.node_edges(kind), start=_CELL_INPUTS)
                for name, source in edges
            ]
            for kind in KINDS
        }

    def all_edges(self) -> dict[str, CellEdges]:
        """Returns kind of cell → all edges of the space, for cells with this number of nodes."""
        states = range(_CELL_INPUTS, _CELL_INPUTS + self.nodes)
        return {
            kind: CellEdges(
                f'{title.capitalize()} cell',
                tuple((operation_label(kind, state, source), state, source) for state in states for source in range(state)),
                dict(enumerate(_INPUT_NAMES)),
                shift=_CELL_INPUTS,
            )
            for kind, title in _TITLES.items()
        }

    def graphs(self, strengths: Mapping[str, float] | None = None) -> list[CellGraph]:
        """Returns the graphs of the normal and the reduction cell. Arguments as for :meth:`AnyGenotype.graphs`."""
        graphs = []
        for kind, title in _TITLES.items():
            builder = GraphBuilder([Box(name, 'input') for name in _INPUT_NAMES])
            for state, edges in enumerate(self.node_edges(kind), start=_CELL_INPUTS):
                builder.state(state, str(state - _CELL_INPUTS))
                for name, source in edges:
                    if name != 'none':  # an edge that is left out
                        builder.operation(name, source, state, (strengths or {}).get(operation_label(kind, state, source)))
            graphs.append(builder.finish(f'{title} cell', Box('c_{k}', 'output'), self.cell(kind)[1]))
        return graphs

    @classmethod
    def random(cls, rng: random.Random, *, nodes: int = 4, operations: Operations = DARTS_OPERATIONS) -> Genotype:
        """Draws a pair of cells uniformly: two different inputs for each node, an operation other than ``none`` for each edge.

        Args:
            rng: source of random numbers.
            nodes: number of nodes of each cell.
            operations: as for :meth:`to_sample`.
        """
        cells: dict[str, tuple[Any, ...]] = {}
        for kind in KINDS:
            edges = []
            for state in range(_CELL_INPUTS, _CELL_INPUTS + nodes):
                for source in sorted(rng.sample(range(state), _INPUTS_PER_NODE)):
                    names = [name for name in _on_edge(operations, kind, state, source) if name != 'none']
                    edges.append((rng.choice(names), source))
            cells[kind] = tuple(edges)
            cells[f'{kind}_concat'] = _full_concat(nodes)
        return cls(**cells)


_TITLES = {'normal': 'normal', 'reduce': 'reduction'}
_INPUT_NAMES = ('c_{k-2}', 'c_{k-1}')
_FIELDS = ('normal', 'normal_concat', 'reduce', 'reduce_concat')
_FIELD_TEXT = 'the keys ' + ', '.join(_FIELDS)
_NOISY_OPERATIONS = ('noise', *DARTS_OPERATIONS[1:])
_MAX_CODE_NODES = 6  # an input must fit three bits: node 5 may use state 6


def _on_edge(operations: Operations, kind: str, state: int, source: int) -> Sequence[str]:
    """Returns the candidates on the edge from ``source`` to ``state``."""
    if not isinstance(operations, Mapping):
        return operations
    return operations[kind][sum(range(_CELL_INPUTS, state)) + source]


def _full_concat(nodes: int) -> tuple[int, ...]:
    return tuple(range(_CELL_INPUTS, _CELL_INPUTS + nodes))


def _checked_edges(kind: str, edges: Any) -> tuple[Edge, ...]:
    if edges is None:
        raise ValueError(f'{kind} is None, as in a space with a single cell; a genotype here has a normal and a reduction cell')
    edges = flat_edges(kind, edges, _INPUTS_PER_NODE)
    if not isinstance(edges, (list, tuple)) or not edges or len(edges) % _INPUTS_PER_NODE:
        raise ValueError(f'{kind} must list (operation, input) pairs, two for each node')
    checked = []
    for position, edge in enumerate(edges):
        if not isinstance(edge, (list, tuple)) or len(edge) != 2:
            raise ValueError(f'edge {position} of {kind} must be a pair (operation, input), not {str(edge)[:60]!r}')
        name, source = edge
        state = _CELL_INPUTS + position // _INPUTS_PER_NODE
        if name not in OPERATION_NAMES and not is_import_path(name):
            raise ValueError(
                f'edge {position} of {kind}: the operation {str(name)[:40]!r} is of another space; those built here: '
                + ', '.join(OPERATION_NAMES)
            )
        if not is_index(source) or not 0 <= source < state:
            raise ValueError(f'edge {position} of {kind}: input {str(source)[:40]!r} must be a state from 0 to {state - 1}')
        checked.append((name, source))
    return tuple(checked)


def _checked_concat(kind: str, concat: Any, edges: int) -> tuple[int, ...]:
    last = _CELL_INPUTS + edges // _INPUTS_PER_NODE - 1
    states = tuple(concat) if isinstance(concat, (list, tuple, range)) and len(concat) <= last + 1 else ()
    if not states or len(set(map(str, states))) != len(states) or not all(is_index(s) and 0 <= s <= last for s in states):
        raise ValueError(f'{kind}_concat must list different states from 0 to {last}, not {str(concat)[:60]!r}')
    return states
