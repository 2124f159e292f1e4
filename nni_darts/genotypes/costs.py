"""Tables of the cost that each candidate of a space adds to a network. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni_darts.genotypes.base import operation_name
from nni_darts.genotypes.neighbours import Choices, Sample

__all__ = ['DECIMALS', 'CostTable', 'Costs', 'JointCosts', 'chosen_candidates']

Costs = Mapping[str, float]
"""Measure, such as ``parameters`` → amount."""

_NOTHING: Costs = {}

DECIMALS = 6
"""Amounts are whole numbers, or have at most this number of decimals, so that their sums are exact when rounded to it."""


@dataclass(frozen=True)
class JointCosts:
    """The cost of parts of a network that depends on several choices together, such as a layer between two searched widths.

    Attributes:
        values: label → candidates, for each of these choices; none of them is on an edge of a cell.
        amounts: measure → cost for each combination of candidates, in the order of ``itertools.product(*values.values())``.
    """

    values: Mapping[str, tuple[Any, ...]]
    amounts: Mapping[str, Sequence[float]]

    def position(self, label: str, value: Any) -> int:
        """Returns the position of a candidate. Names may be those of genotypes or those of NNI's ``LayerChoice``."""
        values = self.values[label]
        return values.index(value if value in values or not isinstance(value, str) else operation_name(value))

    def of(self, sample: Sample) -> dict[str, float]:
        """Returns measure → cost for the combination in an NNI sample."""
        position = 0
        for label, values in self.values.items():
            position = position * len(values) + self.position(label, sample[label])
        return {measure: amounts[position] for measure, amounts in self.amounts.items()}


@dataclass(frozen=True)
class CostTable:
    """The cost of every network of a space in which costs add up.

    The cost of a network is the fixed part, plus what each of its candidates adds, plus what combinations of a few candidates add. What a
    candidate adds on an edge of a cell is its sum over all cells that share the edge's label. Amounts are whole numbers, or have at
    most six decimals.

    Attributes:
        fixed: measure → cost of all parts that are the same in every network, such as the stem and the classifier.
        candidates: label → candidate → measure → what the candidate adds where it is chosen; what is missing adds nothing.
        joint: costs that depend on several choices together.

    Example:
        >>> table = CostTable({'parameters': 10}, {'a': {'conv': {'parameters': 9}}})
        >>> table.of(Choices({'a': ('conv', 'skip')}), {'a': 'conv'})
        {'parameters': 19}
    """

    fixed: Costs
    candidates: Mapping[str, Mapping[Any, Costs]]
    joint: Sequence[JointCosts] = ()

    @property
    def labels(self) -> set[str]:
        """The labels of all choices on which the cost depends."""
        return set(self.candidates).union(*(part.values for part in self.joint))

    def added(self, label: str, value: Any) -> Costs:
        """Returns measure → what a candidate of a label adds. Names may be those of genotypes or those of NNI's ``LayerChoice``."""
        table = self.candidates.get(label, {})
        return table.get(value, table.get(operation_name(value), _NOTHING) if isinstance(value, str) else _NOTHING)

    def of(self, choices: Choices, sample: Sample) -> dict[str, float]:
        """Returns measure → cost of the network of a sample.

        Args:
            choices: the choices of the space.
            sample: NNI sample; operations on edges that are not chosen add nothing.
        """
        total = dict(self.fixed)
        for label, value in chosen_candidates(choices, sample):
            for measure, amount in self.added(label, value).items():
                total[measure] += amount
        for part in self.joint:
            for measure, amount in part.of(sample).items():
                total[measure] += amount
        return {measure: round(amount, DECIMALS) for measure, amount in total.items()}


def chosen_candidates(choices: Choices, sample: Sample) -> Iterator[tuple[str, Any]]:
    """Yields (label, candidate) for each operation and each input of the network of a sample."""
    for label, value in choices.model(sample).items():
        if label in choices.operations:
            yield label, value
        else:
            yield from ((label, chosen) for chosen in value)
