"""A cell as a graph to be drawn: its states, and between them the operations. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nni_darts.genotype import KINDS, Genotype, operation_label
from nni_darts.genotypes import AnyGenotype
from nni_darts.known import KnownNetwork
from nni_darts.nasbench201 import EDGES, NasBench201Genotype, edge_label
from nni_darts.recurrent import KIND, RnnGenotype

__all__ = ['Box', 'CellGraph', 'cell_edges', 'cell_graphs', 'chosen_strengths', 'space_edges']


@dataclass(frozen=True)
class Box:
    """A state of the cell or an operation.

    Attributes:
        text: what stands in it.
        role: ``input``, ``state`` or ``output``; of an operation its family: ``skip``, ``pool``, ``convolution`` or ``activation``.
        strength: of an operation, the probability that α gives it, where it is known.
    """

    text: str
    role: str
    strength: float | None = None


@dataclass(frozen=True)
class CellGraph:
    """One cell.

    Attributes:
        title: which one.
        boxes: states and operations.
        edges: (from, to) as indices of boxes; every operation has one before it and one behind.
        hidden: edges that are not drawn: they keep states in their order, and what nothing reads at its place.
    """

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]
    hidden: tuple[tuple[int, int], ...]


def cell_graphs(genotype: AnyGenotype, strengths: Mapping[str, float] | None = None) -> list[CellGraph]:
    """The graphs of a genotype: normal and reduction cell, the cell of NAS-Bench-201, or the recurrent cell; none of a known network.

    Args:
        strengths: label of the choice on an edge → probability of the operation that was chosen there.
    """
    if isinstance(genotype, KnownNetwork):
        return []
    strengths = strengths or {}
    if isinstance(genotype, RnnGenotype):
        return [_recurrent(genotype, strengths)]
    if isinstance(genotype, NasBench201Genotype):
        return [_nasbench201(genotype, strengths)]
    return [_convolutional(genotype, kind, strengths) for kind in KINDS]


def chosen_strengths(genotype: AnyGenotype, probabilities: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Label → probability of the genotype's operation there, from tables as a search writes them after each epoch."""
    return {
        label: probabilities[label][name]
        for graph in cell_edges(genotype).values()
        for label, name in graph
        if name in probabilities.get(label, ())
    }


def cell_edges(genotype: AnyGenotype) -> dict[str, list[tuple[str, str]]]:
    """Kind of cell → (label, operation) of every edge that the genotype keeps, in its order."""
    if isinstance(genotype, NasBench201Genotype):
        return {'cell': [(edge_label(*edge), name) for edge, name in zip(EDGES, genotype.operations)]}
    if isinstance(genotype, RnnGenotype):
        return {KIND: [(operation_label(KIND, state, source), name) for state, (name, source) in enumerate(genotype.recurrent, 1)]}
    return {
        kind: [
            (operation_label(kind, state, source), name)
            for state, edges in enumerate(genotype.node_edges(kind), start=2)  # type: ignore[union-attr]
            for name, source in edges
        ]
        for kind in KINDS
    }


def space_edges(genotype: AnyGenotype) -> dict[str, list[tuple[str, int, int]]]:
    """Kind of cell → (label, state, source) of every edge of the space that a genotype was found in."""
    if isinstance(genotype, NasBench201Genotype):
        return {'cell': [(edge_label(node, source), node, source) for node, source in EDGES]}
    kinds, first = ((KIND,), 1) if isinstance(genotype, RnnGenotype) else (KINDS, 2)
    states = range(first, first + genotype.nodes)  # type: ignore[union-attr]
    return {kind: [(operation_label(kind, state, source), state, source) for state in states for source in range(state)] for kind in kinds}


def _convolutional(genotype: Genotype, kind: str, strengths: Mapping[str, float]) -> CellGraph:
    nodes, concat = genotype.node_edges(kind), genotype.cell(kind)[1]
    builder = _Builder([Box('c_{k-2}', 'input'), Box('c_{k-1}', 'input')])
    for state, edges in enumerate(nodes, start=2):
        builder.state(state, str(state - 2))
        for name, source in edges:
            builder.operation(name, source, state, strengths.get(operation_label(kind, state, source)))
    return builder.finish({'normal': 'normal cell', 'reduce': 'reduction cell'}[kind], Box('c_{k}', 'output'), concat)


def _nasbench201(genotype: NasBench201Genotype, strengths: Mapping[str, float]) -> CellGraph:
    builder = _Builder([Box('in', 'input')])
    builder.state(1, '1')
    builder.state(2, '2')
    builder.state(3, 'out', 'output')
    for (node, source), name in zip(EDGES, genotype.operations):
        if name != 'none':
            builder.operation(name, source, node, strengths.get(edge_label(node, source)))
    return builder.finish('NAS-Bench-201 cell')


def _recurrent(genotype: RnnGenotype, strengths: Mapping[str, float]) -> CellGraph:
    builder = _Builder([])
    builder.state(0, '0')
    for text in ('x_{t}', 'h_{t-1}'):
        builder.boxes.append(Box(text, 'input'))
        builder.edges.append((len(builder.boxes) - 1, builder.states[0]))
    for state, (name, source) in enumerate(genotype.recurrent, start=1):
        builder.state(state, str(state))
        builder.operation(name, source, state, strengths.get(operation_label(KIND, state, source)))
    return builder.finish('recurrent cell', Box('h_{t}', 'output'), genotype.concat)


class _Builder:
    """Collects boxes and edges; a state's number is not its box's."""

    def __init__(self, inputs: Sequence[Box]) -> None:
        self.boxes: list[Box] = list(inputs)
        self.edges: list[tuple[int, int]] = []
        self.states: dict[int, int] = {index: index for index in range(len(inputs))}

    def state(self, number: int, text: str, role: str = 'state') -> None:
        self.states[number] = len(self.boxes)
        self.boxes.append(Box(text, role))

    def operation(self, name: str, source: int, target: int, strength: float | None) -> None:
        self.boxes.append(Box(name, _family(name), strength))
        self.edges += [(self.states[source], len(self.boxes) - 1), (len(self.boxes) - 1, self.states[target])]

    def finish(self, title: str, output: Box | None = None, concat: Sequence[int] = ()) -> CellGraph:
        """The graph; with an ``output`` that reads the states in ``concat``, else the last state is the output."""
        last = max(self.states.values())
        if output is not None:
            self.boxes.append(output)
            last = len(self.boxes) - 1
            self.edges += [(self.states[state], last) for state in concat]
        read, written = {source for source, _ in self.edges}, {target for _, target in self.edges}
        states = [index for index, box in enumerate(self.boxes) if index != last]
        hidden = [(index, last) for index in states if index not in read]
        hidden += [(0, index) for index in [*states, last] if index not in written and self.boxes[index].role != 'input']
        # Nodes stand from left to right in their order, so that drawings of different cells can be compared.
        hidden += pairwise(index for _, index in sorted(self.states.items()) if self.boxes[index].role == 'state')
        return CellGraph(title, tuple(self.boxes), tuple(self.edges), tuple(dict.fromkeys(hidden)))


def _family(name: str) -> str:
    if name in ('skip_connect', 'identity'):
        return 'skip'
    if 'pool' in name:
        return 'pool'
    return 'convolution' if 'conv' in name else 'activation'
