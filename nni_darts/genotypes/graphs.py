"""A genotype as a graph to be drawn, and a space as a table of its choices. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ['Box', 'CellEdges', 'CellGraph', 'GraphBuilder']


@dataclass(frozen=True)
class Box:
    """A state of the cell or an operation.

    Attributes:
        text: the text inside.
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
        title: its name.
        boxes: states and operations.
        edges: (from, to) as indices of boxes; every operation has one before it and one behind.
        hidden: edges that are not drawn: they keep states in their order, and what nothing reads at its place.
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
        names: source → its name, where that is not its number less ``shift``; empty for a column without a heading.
        shift: how many states come before the first node.
        rows: state → the heading of its row, where that is not the number of a node.
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
    """Collects boxes and edges of a graph; the number of a state is not the number of its box.

    Args:
        inputs: the first boxes; their numbers are those of the states 0, 1, ….
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
        """Adds an operation behind a state, with nothing behind it."""
        self.boxes.append(Box(name, _family(name), strength))
        self.edges.append((self.states[source], len(self.boxes) - 1))

    def finish(self, title: str, output: Box | None = None, concat: Sequence[int] = (), *, ordered: bool = True) -> CellGraph:
        """Returns the graph.

        Args:
            title: its title.
            output: a box that reads the states in ``concat``; left out, the last state is the output.
            concat: numbers of states.
            ordered: whether states stand from left to right and lead to an output.
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
