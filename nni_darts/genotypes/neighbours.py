"""The choices of a space as plain data, and the smallest steps from one NNI sample of it to another. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from nni_darts.genotypes.base import input_label, operation_label
from nni_darts.genotypes.candidates import Candidates
from nni_darts.genotypes.nasbench201 import EDGES, OPERATIONS, edge_label
from nni_darts.genotypes.recurrent import ACTIVATIONS, KIND

__all__ = ['NASBENCH201_CHOICES', 'Choices', 'Inputs', 'darts_choices', 'recurrent_choices']

Sample = Mapping[str, Any]
"""Label → what was chosen: a value, or the list of an InputChoice."""


@dataclass(frozen=True)
class Inputs:
    """One label of NNI's InputChoice.

    Attributes:
        values: the inputs there are.
        chosen: how many of them are chosen; None: any number from one.
        edges: the labels of the operations on them, in their order, where the inputs are edges of a cell.
    """

    values: tuple[Any, ...]
    chosen: int | None
    edges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """A space: label → the candidates of a choice among operations, label → a choice of inputs.

    Candidates are those that a finished model may have: ``none`` is not among those on an edge of a cell.
    """

    operations: Mapping[str, tuple[Any, ...]]
    inputs: Mapping[str, Inputs] = field(default_factory=dict)

    def model(self, sample: Sample) -> dict[str, Any]:
        """The part of a sample that says which model it is: without the operations on edges that are not chosen."""
        idle = {
            edge for label, inputs in self.inputs.items() for value, edge in zip(inputs.values, inputs.edges) if value not in sample[label]
        }
        chosen: dict[str, Any] = {label: sample[label] for label in self.operations if label not in idle}
        return {**chosen, **{label: sorted(sample[label]) for label in self.inputs}}

    def mutated(self, sample: Sample, rng: random.Random) -> dict[str, Any]:
        """A sample of another model: one operation or one input is changed (Real et al., AAAI 2019, methods).

        Operation or input is an even chance; then all operations, or all chosen inputs, that could be other ones are equally likely,
        and so is what takes their place. An operation stays as its node changes the input, where the new edge offers it.

        Raises:
            ValueError: if nothing can be changed.
        """
        changed = dict(sample)
        model = self.model(sample)
        operations = [label for label, values in self.operations.items() if label in model and len(values) > 1]
        inputs = list(self._replaceable(sample))
        if not operations and not inputs:
            raise ValueError('this space has a single model: no choice in it has two candidates')
        if inputs and (not operations or rng.random() < 0.5):
            label, old = rng.choice(inputs)
            changed |= self._with_another_input(sample, label, old, rng)
        else:
            label = rng.choice(operations)
            changed[label] = rng.choice([value for value in self.operations[label] if value != sample[label]])
        return changed

    def _replaceable(self, sample: Sample) -> Iterator[tuple[str, Any]]:
        """(label, input) of every chosen input in whose place another one may be chosen; where any number is, of every input."""
        for label, inputs in self.inputs.items():
            if inputs.chosen is None:
                yield from ((label, value) for value in inputs.values if [value] != list(sample[label]))
            elif len(inputs.values) > inputs.chosen:
                yield from ((label, value) for value in sample[label])

    def _with_another_input(self, sample: Sample, label: str, old: Any, rng: random.Random) -> dict[str, Any]:
        inputs, kept = self.inputs[label], [value for value in sample[label] if value != old]
        if inputs.chosen is None:
            return {label: kept if old in sample[label] else sorted([*kept, old])}
        new = rng.choice([value for value in inputs.values if value not in sample[label]])
        changed: dict[str, Any] = {label: sorted([*kept, new])}
        if inputs.edges:
            edge_of = dict(zip(inputs.values, inputs.edges))
            operation, offered = sample[edge_of[old]], self.operations[edge_of[new]]
            changed[edge_of[new]] = operation if operation in offered else rng.choice(offered)
        return changed


def darts_choices(candidates: Candidates) -> Choices:
    """The choices of :class:`nni_darts.search_spaces.DartsSpace` with these operations on its edges."""
    operations: dict[str, tuple[str, ...]] = {}
    inputs: dict[str, Inputs] = {}
    for kind, edges in candidates.items():
        first = 0
        for state in count(2):  # the edges of a node follow those of the node before
            offered = edges[first : first + state]
            if not offered:
                break
            labels = tuple(operation_label(kind, state, source) for source in range(state))
            operations |= {label: _without_none(names) for label, names in zip(labels, offered)}
            inputs[input_label(kind, state)] = Inputs(tuple(range(state)), 2, labels)
            first += state
    return Choices(operations, inputs)


def recurrent_choices(nodes: int) -> Choices:
    """The choices of :class:`nni_darts.search_spaces.DartsRnnSpace`."""
    operations: dict[str, tuple[str, ...]] = {}
    inputs: dict[str, Inputs] = {}
    for state in range(1, nodes + 1):
        labels = tuple(operation_label(KIND, state, source) for source in range(state))
        operations |= dict.fromkeys(labels, _without_none(ACTIVATIONS))
        inputs[input_label(KIND, state)] = Inputs(tuple(range(state)), 1, labels)
    return Choices(operations, inputs)


NASBENCH201_CHOICES = Choices({edge_label(*edge): OPERATIONS for edge in EDGES})
"""The choices of NAS-Bench-201, where ``none`` is a candidate like the others."""


def _without_none(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != 'none')
