"""Recurrent cells as data (Liu et al., ICLR 2019, section 3.1). Imports no torch.

State 0 is computed from the word and the previous hidden state. Node i reads one of the states 0 … i − 1 through one activation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni_darts.genotypes.base import (
    AnyGenotype,
    checked_fields,
    concat_text,
    input_label,
    is_index,
    literature_fields,
    operation_label,
)
from nni_darts.genotypes.graphs import Box, CellEdges, CellGraph, GraphBuilder

__all__ = ['ACTIVATIONS', 'CODE_PREFIX', 'KIND', 'RnnGenotype']

ACTIVATIONS = ('none', 'tanh', 'relu', 'sigmoid', 'identity')
"""The candidates on every edge in the order of the paper; ``none`` is in no finished cell."""

KIND = 'recurrent'
"""The kind of cell, the first part of its labels."""

Edge = tuple[str, int]

_FORM = 'Genotype(recurrent=[(activation, input), …], concat=…)'
_FIELDS = ('recurrent', 'concat')
CODE_PREFIX = 'rnn.'
_LETTERS = {name[0]: name for name in ACTIVATIONS[1:]}
_DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'
_MAX_NODES = len(_DIGITS) - 1  # a state is one digit of the code


@dataclass(frozen=True)
class RnnGenotype(AnyGenotype):
    """A recurrent cell: one ``(activation, input)`` pair for each node. Node i computes state i; nodes are numbered from 1.

    Attributes:
        recurrent: the pairs, in the order of the nodes.
        concat: the states whose mean is the output. The name comes from the literature, where cells concatenate.

    Raises:
        ValueError: for fields that do not describe such a cell; the message names the offending value.
    """

    kind = 'recurrent'
    task = 'text'
    network = 'nni_darts.search_spaces.recurrent:recurrent_network'
    form = 'a recurrent genotype in JSON is an object with the keys recurrent, concat'

    recurrent: tuple[Edge, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'recurrent', _checked_edges(self.recurrent))
        object.__setattr__(self, 'concat', _checked_concat(self.concat, len(self.recurrent)))

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return len(self.recurrent)

    def count(self, activation: str) -> int:
        """Returns how many nodes use an activation."""
        return sum(name == activation for name, _ in self.recurrent)

    # Plain data -------------------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns the two fields as plain data, which :meth:`from_dict` reads."""
        return {'recurrent': [list(edge) for edge in self.recurrent], 'concat': list(self.concat)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RnnGenotype:
        """Reads the data of :meth:`to_dict`. Raises ValueError that says which field is missing, unknown or wrong."""
        return cls(**checked_fields(value, _FIELDS, 'a recurrent genotype', ' and '.join(_FIELDS)))

    # The literature's text ------------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """Returns the text as DARTS prints it: ``Genotype(recurrent=[('sigmoid', 0), …], concat=range(1, 9))``."""
        return f'Genotype(recurrent={list(self.recurrent)!r}, concat={concat_text(self.concat)})'

    @classmethod
    def from_text(cls, text: str) -> RnnGenotype:
        """Reads ``Genotype(recurrent=[…], concat=…)`` or ``NAME = Genotype(…)``. The text is parsed, never evaluated.

        Raises:
            ValueError: for anything but a call of ``Genotype`` with literal arguments.
        """
        return cls.from_dict(literature_fields(text, _FORM, _FIELDS))

    # NNI's sample ---------------------------------------------------------------------------------------------------------------

    def to_sample(self) -> dict[str, Any]:
        """Returns the NNI sample that freezes :class:`nni_darts.search_spaces.DartsRnnSpace` to this cell.

        NNI requires a value for every label, so an edge that is not chosen gets ``none``; it is not built.

        Raises:
            ValueError: if the output leaves out nodes, as in the cell of ENAS. Such a cell lies outside ``DartsRnnSpace``, but
                ``network_from_genotype`` builds its network.
        """
        if self.concat != _full_concat(self.nodes):
            raise ValueError(f'the output is the mean of the states {list(self.concat)}: not a cell of the DARTS space, where it is of all')
        sample: dict[str, Any] = {}
        for state, (name, chosen) in enumerate(self.recurrent, start=1):
            sample[input_label(KIND, state)] = [chosen]
            for source in range(state):
                sample[operation_label(KIND, state, source)] = name if source == chosen else ACTIVATIONS[0]
        return sample

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> RnnGenotype:
        """Returns the cell of a sample of ``DartsRnnSpace``. Raises ValueError if a label is missing."""
        edges: list[Edge] = []
        while input_label(KIND, len(edges) + 1) in sample:
            state = len(edges) + 1
            chosen = sample[input_label(KIND, state)]
            (source,) = chosen if isinstance(chosen, Sequence) else (chosen,)
            label = operation_label(KIND, state, source)
            if label not in sample:
                raise ValueError(f'the sample has no value for {label!r}')
            edges.append((sample[label], source))
        if not edges:
            raise ValueError(f'the sample has no value for {input_label(KIND, 1)!r}: not a sample of DartsRnnSpace')
        return cls(tuple(edges), _full_concat(len(edges)))

    # The short code -------------------------------------------------------------------------------------------------------------

    def code(self) -> str:
        """Returns a reversible code, safe in NNI's metrics, URLs and file names: ``rnn.`` and two characters for each node.

        The characters are the activation's first letter and the input as a digit (10 is ``a``). If the output is not the mean of all
        nodes, a dot and the digits of its states follow.
        """
        edges = ''.join(name[0] + _DIGITS[source] for name, source in self.recurrent)
        full = self.concat == _full_concat(self.nodes)
        return CODE_PREFIX + edges + ('' if full else '.' + ''.join(_DIGITS[state] for state in self.concat))

    @classmethod
    def from_code(cls, code: str) -> RnnGenotype:
        """Reads the text of :meth:`code`. Raises ValueError for any other text."""
        match = re.fullmatch(re.escape(CODE_PREFIX) + rf'((?:[{"".join(_LETTERS)}][0-9a-z])+)(?:\.([0-9a-z]+))?', code, re.ASCII)
        if match is None:
            raise ValueError(
                f'{code[:40]!r} is not the code of a recurrent cell: {CODE_PREFIX} and for each node a letter of '
                f'{", ".join(_LETTERS)} and the digit of its input'
            )
        pairs = re.findall('..', match[1])
        edges = tuple((_LETTERS[letter], _DIGITS.index(digit)) for letter, digit in pairs)
        return cls(edges, _full_concat(len(edges)) if match[2] is None else tuple(map(_DIGITS.index, match[2])))

    # Graph ----------------------------------------------------------------------------------------------------------------------

    def edges(self) -> dict[str, list[tuple[str, str]]]:
        """Returns kind of cell → (label, activation) of every node."""
        return {KIND: [(operation_label(KIND, state, source), name) for state, (name, source) in enumerate(self.recurrent, 1)]}

    def all_edges(self) -> dict[str, CellEdges]:
        """Returns kind of cell → all edges of the space, for a cell with this number of nodes."""
        states = range(1, self.nodes + 1)
        edges = ((operation_label(KIND, state, source), state, source) for state in states for source in range(state))
        return {KIND: CellEdges('Recurrent cell', tuple(edges))}

    def graphs(self, strengths: Mapping[str, float] | None = None) -> list[CellGraph]:
        """Returns the graph of the cell. Arguments as for :meth:`AnyGenotype.graphs`."""
        builder = GraphBuilder([])
        builder.state(0, '0')
        for text in ('x_{t}', 'h_{t-1}'):
            builder.boxes.append(Box(text, 'input'))
            builder.edges.append((len(builder.boxes) - 1, builder.states[0]))
        for state, (name, source) in enumerate(self.recurrent, start=1):
            builder.state(state, str(state))
            builder.operation(name, source, state, (strengths or {}).get(operation_label(KIND, state, source)))
        return [builder.finish('recurrent cell', Box('h_{t}', 'output'), self.concat)]

    @classmethod
    def random(cls, rng: random.Random, *, nodes: int = 8) -> RnnGenotype:
        """Draws a cell uniformly: an input and an activation other than ``none`` for each node."""
        edges = tuple((rng.choice(ACTIVATIONS[1:]), rng.randrange(state)) for state in range(1, nodes + 1))
        return cls(edges, _full_concat(nodes))


def _full_concat(nodes: int) -> tuple[int, ...]:
    return tuple(range(1, nodes + 1))


def _is_state(value: Any, last: int) -> bool:
    return is_index(value) and 0 <= value <= last


def _checked_edges(edges: Any) -> tuple[Edge, ...]:
    if not isinstance(edges, (list, tuple)) or not 1 <= len(edges) <= _MAX_NODES:
        raise ValueError(f'recurrent must list an (activation, input) pair for each of 1 to {_MAX_NODES} nodes, not {str(edges)[:60]!r}')
    checked = []
    for state, edge in enumerate(edges, start=1):
        if not isinstance(edge, (list, tuple)) or len(edge) != 2:
            raise ValueError(f'node {state} must be a pair (activation, input), not {str(edge)[:60]!r}')
        name, source = edge
        if name not in ACTIVATIONS[1:]:
            raise ValueError(f'node {state}: unknown activation {str(name)[:40]!r}; known: {", ".join(ACTIVATIONS[1:])}')
        if not _is_state(source, state - 1):
            raise ValueError(f'node {state}: input {str(source)[:40]!r} must be a state from 0 to {state - 1}')
        checked.append((name, source))
    return tuple(checked)


def _checked_concat(concat: Any, nodes: int) -> tuple[int, ...]:
    states = tuple(concat) if isinstance(concat, (list, tuple, range)) and len(concat) <= nodes + 1 else ()
    if not states or not all(_is_state(state, nodes) for state in states) or len(set(states)) != len(states):
        raise ValueError(f'concat must list different states from 0 to {nodes}, not {str(concat)[:60]!r}')
    return states
