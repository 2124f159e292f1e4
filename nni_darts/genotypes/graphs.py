"""Graphs that draw genotypes, and tables of the choices in a space. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ['Box', 'CellEdges', 'CellGraph', 'GraphBuilder']


@dataclass(frozen=True)
class Box:
    """A box of a drawing: a state of the cell or an operation.

    Attributes:
        text: the text inside the box.
        role: ``input``, ``state`` or ``output``, or the family of an operation: ``skip``, ``pool``, ``convolution`` or ``activation``.
        strength: probability that α gives to an operation; None if it is unknown, and for states.
    """

    text: str
    role: str
    strength: float | None = None


@dataclass(frozen=True)
class CellGraph:
    """The drawing of one cell.

    Attributes:
        title: name of the cell.
        boxes: states and operations.
        edges: (from, to) as indices of boxes; every operation has one edge into it and at most one out of it.
        hidden: edges that are not drawn; they keep the states in order and hold boxes in place that no other box reads.
    """

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]
    hidden: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class CellEdges:
    """The choices of one cell as a table: a row for each state, a column for each state that it may read.

    Attributes:
        title: the name of the cell.
        edges: (label, state, source) of every choice.
        names: source → its name, for sources whose name is not their number minus ``shift``; empty for a column without a heading.
        shift: number of states before the first node.
        rows: state → heading of its row, for states whose heading is not the number of a node.
    """

    title: str
    edges: tuple[tuple[str, int, int], ...]
    names: Mapping[int, str] = field(default_factory=dict)
    shift: int = 0
    rows: Mapping[int, str] = field(default_factory=dict)

    def row(self, state: int) -> str:
        """Returns the heading of a state's row."""
        return self.rows[state] if state in self.rows else f'node {state - self.shift}'

    def column(self, source: int) -> str:
        """Returns the heading of a source's column."""
        name = self.names.get(source, str(source - self.shift))
        return f'from {name}' if name else ''


class GraphBuilder:
    """Collects the boxes and edges of a graph. States are numbered apart from boxes.

    Args:
        inputs: boxes of the first states, which are numbered 0, 1, ….
    """

    def __init__(self, inputs: Sequence[Box]) -> None:
        self.boxes: list[Box] = list(inputs)
        self.edges: list[tuple[int, int]] = []
        self.states: dict[int, int] = {index: index for index in range(len(inputs))}

    def state(self, number: int, text: str, role: str = 'state') -> None:
        """Adds a state."""
        self.states[number] = len(self.boxes)
        self.boxes.append(Box(text, role))

    def operation(self, name: str, source: int, target: int, strength: float | None) -> None:
        """Adds an operation between two states."""
        self.boxes.append(Box(name, _family(name), strength))
        self.edges += [(self.states[source], len(self.boxes) - 1), (len(self.boxes) - 1, self.states[target])]

    def leaf(self, name: str, source: int, strength: float | None) -> None:
        """Adds an operation that reads a state and that no state reads."""
        self.boxes.append(Box(name, _family(name), strength))
        self.edges.append((self.states[source], len(self.boxes) - 1))

    def finish(self, title: str, output: Box | None = None, concat: Sequence[int] = (), *, ordered: bool = True) -> CellGraph:
        """Returns the finished graph.

        Args:
            title: title of the graph.
            output: a box that reads the states in ``concat``; None if the last state is the output.
            concat: numbers of the states that the output reads.
            ordered: whether states are drawn from left to right and lead to an output.
        """
        if not ordered:
            return CellGraph(title, tuple(self.boxes), tuple(self.edges), ())
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
    name = name.lower()
    if name in ('skip_connect', 'identity'):
        return 'skip'
    if 'pool' in name:
        return 'pool'
    return 'convolution' if 'conv' in name else 'activation'
