"""The choices of a space as plain data, and mutation of NNI samples by one choice. Imports no torch."""

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
"""Label → chosen value, or list of chosen inputs of an InputChoice."""


@dataclass(frozen=True)
class Inputs:
    """The choice of inputs at one label of NNI's InputChoice.

    Attributes:
        values: the candidate inputs.
        chosen: number of inputs to choose; None allows any number from 1.
        edges: if the inputs are edges of a cell, the labels of the operations on them, in the order of ``values``.
    """

    values: tuple[Any, ...]
    chosen: int | None
    edges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choices:
    """The choices of a space: label → candidates of a choice among operations, and label → choice of inputs.

    Only candidates that a finished model may have are listed, so ``none`` is not a candidate on an edge of a cell.
    """

    operations: Mapping[str, tuple[Any, ...]]
    inputs: Mapping[str, Inputs] = field(default_factory=dict)

    def model(self, sample: Sample) -> dict[str, Any]:
        """Returns the part of a sample that identifies the model: all but the operations on edges that are not chosen."""
        idle = {
            edge for label, inputs in self.inputs.items() for value, edge in zip(inputs.values, inputs.edges) if value not in sample[label]
        }
        chosen: dict[str, Any] = {label: sample[label] for label in self.operations if label not in idle}
        return {**chosen, **{label: sorted(sample[label]) for label in self.inputs}}

    def mutated(self, sample: Sample, rng: random.Random) -> dict[str, Any]:
        """Returns a sample of another model, with one operation or one input changed (Real et al., AAAI 2019, methods).

        Whether an operation or an input is changed is an even chance. All operations or chosen inputs that can be changed are then
        equally likely, as are all replacements. If an input changes, its operation is kept where the new edge offers it.

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
        """Yields (label, input) for each chosen input that can be replaced, or for each input where any number may be chosen."""
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
    """Returns the choices of :class:`nni_darts.search_spaces.DartsSpace` with these candidates on its edges."""
    operations: dict[str, tuple[str, ...]] = {}
    inputs: dict[str, Inputs] = {}
    for kind, edges in candidates.items():
        first = 0
        for state in count(2):  # the edges of a node follow the edges of the preceding node
            offered = edges[first : first + state]
            if not offered:
                break
            labels = tuple(operation_label(kind, state, source) for source in range(state))
            operations |= {label: _without_none(names) for label, names in zip(labels, offered)}
            inputs[input_label(kind, state)] = Inputs(tuple(range(state)), 2, labels)
            first += state
    return Choices(operations, inputs)


def recurrent_choices(nodes: int) -> Choices:
    """Returns the choices of :class:`nni_darts.search_spaces.DartsRnnSpace` with this number of nodes."""
    operations: dict[str, tuple[str, ...]] = {}
    inputs: dict[str, Inputs] = {}
    for state in range(1, nodes + 1):
        labels = tuple(operation_label(KIND, state, source) for source in range(state))
        operations |= dict.fromkeys(labels, _without_none(ACTIVATIONS))
        inputs[input_label(KIND, state)] = Inputs(tuple(range(state)), 1, labels)
    return Choices(operations, inputs)


NASBENCH201_CHOICES = Choices({edge_label(*edge): OPERATIONS for edge in EDGES})
"""The choices of NAS-Bench-201, where ``none`` is a candidate like any other."""


def _without_none(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != 'none')
