"""Penalties on the expected cost of the architecture, as terms of the loss that α minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from nni_darts.genotypes.costs import CostTable, JointCosts
from nni_darts.strategies.decisions import InputDecision
from nni_darts.strategies.relaxations.subsets import subset_weights
from nni_darts.strategies.terms.base import Term

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture, Path
    from nni_darts.strategies.moment import Moment
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['CostPenalty', 'Penalties', 'expected_cost', 'of_nni']

_LEAST = 1e-30
"""Smallest weight of an edge, so that its logarithm is finite."""


@dataclass(frozen=True)
class CostPenalty:
    """A penalty on one cost, with the semantics of NNI's ``ProfilerPenalty``.

    With ``r = f(cost / target − 1)``, where f is ``nonlinear``, the loss becomes ``loss + weight · r`` or ``loss · (1 + r)^weight``.

    Attributes:
        measure: the cost.
        target: cost at which r is 0; NNI's ``baseline``.
        weight: weight of the penalty; NNI's ``scale``.
        nonlinear: f: ``linear`` (x), ``positive`` (max(x, 0)), ``negative`` (min(x, 0)) or ``absolute`` (\\|x\\|).
        aggregate: ``add`` or ``mul``.
    """

    measure: str
    target: float
    weight: float
    nonlinear: Literal['linear', 'positive', 'negative', 'absolute'] = 'linear'
    aggregate: Literal['add', 'mul'] = 'add'

    def on(self, loss: Tensor, cost: Tensor) -> Tensor:
        """Returns a scalar loss with the penalty of a scalar cost."""
        r = cost / self.target - 1
        r = {'linear': r, 'positive': r.clamp(min=0), 'negative': r.clamp(max=0), 'absolute': r.abs()}[self.nonlinear].to(loss)
        return loss + self.weight * r if self.aggregate == 'add' else loss * (1 + r) ** self.weight


@dataclass(frozen=True)
class Penalties(Term):
    """Penalties on the costs of a search.

    Attributes:
        table: costs of all candidates.
        terms: the penalties, which are applied one after the other.

    Example:
        ``strategy.penalty = Penalties(table, (CostPenalty('multiply_adds', 50e6, 0.2),))``
    """

    table: CostTable
    terms: Sequence[CostPenalty]

    def on_loss(self, loss: Tensor, architecture: Architecture, relaxation: Relaxation, moment: Moment | None = None) -> Tensor:
        """Returns a loss with the penalties on the expected costs, which depend on α only."""
        for term in self.terms:
            loss = term.on(loss, expected_cost(architecture, relaxation, self.table, term.measure))
        return loss

    def on_score(self, score: Tensor, architecture: Architecture, path: Path) -> Tensor:
        """Returns the reward of a path, an accuracy or a negative loss, lowered by the penalties on its costs."""
        sample = architecture.sample_of(path, only_path=True)
        for term in self.terms:
            cost = torch.tensor(_cost_of_path(architecture, self.table, sample, term.measure), dtype=torch.float64)
            # An accuracy is divided by the factor that multiplies a loss.
            inverse = term.aggregate == 'mul' and bool(score > 0)
            score = 1 / term.on(1 / score, cost) if inverse else -term.on(-score, cost)
        return score


def of_nni(penalty: Any, loss: Tensor, architecture: Architecture, relaxation: Relaxation) -> Tensor:
    """Returns a loss with a penalty object of NNI, whose expectation is computed from tensors, so that α gets a gradient.

    Args:
        penalty: an ``ExpectationProfilerPenalty``. Its profiler may depend on choices among operations and values only.
        loss: scalar loss.
        architecture: α.
        relaxation: gives the probabilities.
    """
    distributions = {
        label: dict(zip(decision.names, relaxation.probabilities(architecture.alpha(label)).unbind()))
        for label, decision in architecture.operations().items()
    }
    return penalty(loss, distributions)[0]


def _cost_of_path(architecture: Architecture, table: CostTable, sample: Mapping[str, Any], measure: str) -> float:
    total = table.fixed[measure]
    for label, value in sample.items():
        for chosen in value if isinstance(architecture.decisions[label], InputDecision) else [value]:
            total += table.added(label, chosen).get(measure, 0)
    return total + sum(part.of(sample)[measure] for part in table.joint)


def expected_cost(architecture: Architecture, relaxation: Relaxation, table: CostTable, measure: str) -> Tensor:
    """Returns the expected cost of an architecture that is drawn from the relaxation's probabilities, a float64 scalar on the CPU.

    A choice takes each operation with its probability. A node of a cell that keeps k edges takes k different edges with a probability in
    proportion to the product of their weights, where the weight of an edge is the probability of anything but ``none``, times its β
    where edges have such weights; its operation is drawn among the others than ``none``. So if α is certain of one architecture, this
    is the cost of that architecture. Decisions already taken are certain.

    Args:
        architecture: α and the decisions so far.
        relaxation: gives the probabilities of the operations.
        table: costs of the candidates.
        measure: the cost.
    """
    total = torch.tensor(float(table.fixed[measure]), dtype=torch.float64)
    of_edge: dict[str, tuple[Tensor, Tensor]] = {}
    for label, decision in architecture.operations().items():
        probabilities = _probabilities(architecture, relaxation, label)
        costs = probabilities.new_tensor([table.added(label, name).get(measure, 0) for name in decision.names])
        if label in architecture.edges:
            kept = architecture.eligible(label)
            present = probabilities[kept].sum()
            of_edge[label] = present, (probabilities[kept] * costs[kept]).sum() / present.clamp(min=_LEAST)
        else:
            total = total + (probabilities * costs).sum()
    for label, choice in architecture.inputs().items():
        if choice.edges:
            total = total + _cost_of_edges(architecture, label, choice, of_edge)
        else:
            total = total + _cost_of_inputs(architecture, label, table, measure)
    for part in table.joint:
        total = total + _cost_of_combinations(architecture, relaxation, part, measure)
    return total


def _probabilities(architecture: Architecture, relaxation: Relaxation, label: str) -> Tensor:
    alpha = _alpha(architecture, label)
    fixed = architecture.state.fixed.get(label)
    if fixed is not None:
        return torch.zeros_like(alpha).index_fill(0, torch.tensor([fixed]), 1.0)
    probabilities = relaxation.probabilities(alpha)
    return probabilities / probabilities.sum()


def _cost_of_edges(architecture: Architecture, label: str, decision: InputDecision, of_edge: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    left = architecture.view.inputs(label)
    edges = [of_edge[decision.edges[index]] for index in left]  # type: ignore[index]
    weights, costs = torch.stack([weight for weight, _ in edges]), torch.stack([cost for _, cost in edges])
    if decision.weighted:
        weights = weights * architecture.edge_weights(label).cpu().double()[left]
    # P(S) ∝ exp(Σ log w): the distribution over subsets whose scores are the logarithms of the weights.
    chosen = None if decision.chosen is None else min(decision.chosen, len(left))
    return (subset_weights(weights.clamp(min=_LEAST).log(), chosen) * costs).sum()


def _cost_of_inputs(architecture: Architecture, label: str, table: CostTable, measure: str) -> Tensor:
    decision, left = architecture.inputs()[label], architecture.view.inputs(label)
    alpha = architecture.logits(label).cpu().double()[left]
    costs = alpha.new_tensor([table.added(label, index).get(measure, 0) for index in left])
    return (subset_weights(alpha, None if decision.chosen is None else min(decision.chosen, len(left))) * costs).sum()


def _cost_of_combinations(architecture: Architecture, relaxation: Relaxation, part: JointCosts, measure: str) -> Tensor:
    """Returns Σ cost · Π probability over all combinations, because choices are drawn independently."""
    expected = torch.tensor(part.amounts[measure], dtype=torch.float64).reshape([len(values) for values in part.values.values()])
    for label in part.values:
        names = architecture.operations()[label].names
        positions = torch.tensor([part.position(label, name) for name in names])
        expected = torch.tensordot(_probabilities(architecture, relaxation, label), expected[positions], 1)
    return expected


def _alpha(architecture: Architecture, label: str) -> Tensor:
    """Returns α of a label on the CPU, where float64 always works and these few numbers are added fastest."""
    return architecture.alpha(label).cpu().double()
