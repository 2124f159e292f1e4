"""SGAS: edges are decided greedily during the search (Li et al., CVPR 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.catalogue import GreedySettings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.selections.limited import allowed_operations
from nni_darts.strategies.selections.magnitude import Selection
from nni_darts.strategies.selections.perturbation import ProgressiveMagnitude
from nni_darts.strategies.selections.progressive import Progressive
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Greedy']


@typed(settings=GreedySettings)
class Greedy(Selection):
    """Fixes one edge of each kind of cell at a time, the one with the best score, until every node has its inputs.

    The score is the product of an edge's importance (the probability of anything but ``none``), the certainty of its choice (one minus
    the normalised entropy of the other operations' probabilities) and, under criterion 2, its stability (the overlap of these
    probabilities with those of the last epochs); each is scaled to [0, 1] over all edges of the kind first. A decided edge keeps its
    most probable operation and never changes again; once a node has as many decided edges as it keeps inputs, its other edges go.
    Ties keep the first. If the architecture has limits, decisions that leave no architecture within them are not taken.

    Args:
        greedy_criterion: 1, or 2 with stability.
        decision_start, decision_every: in a search of 50 epochs decisions fall at the end of epoch 10, 15, … (counted from 1), as
            published (9 and 5 counted from 0); in a shorter or longer search at the same parts of it.
        batch_increase: by how much training batches grow after each decision, as computing gets cheaper.
        history: epochs whose probabilities stability looks back on.
        operations: decides the operation on the edge that is due; by magnitude unless given.

    Raises:
        ValueError: for a setting outside its range.
    """

    decides_while_searching = True

    def __init__(
        self,
        *,
        greedy_criterion: Literal[1, 2] = 1,
        decision_start: int = 9,
        decision_every: int = 5,
        batch_increase: int = 8,
        history: int = 4,
        operations: Progressive | None = None,
    ) -> None:
        self.greedy_criterion = greedy_criterion
        self.decision_start = decision_start
        self.decision_every = decision_every
        self.batch_increase = batch_increase
        self.history = history
        self.operations = operations or ProgressiveMagnitude()

    def rounds(self, architecture: Architecture) -> int:
        """How many rounds of decisions there are."""
        return max(self._to_decide(architecture), default=0)

    def _to_decide(self, architecture: Architecture) -> list[int]:
        """For each kind of cell how many labels get decided; the other edges go."""
        counts = []
        for labels in architecture.grouped(architecture.operations()).values():
            choices = {architecture.edges[label][0] for label in labels if label in architecture.edges}
            alone = sum(label not in architecture.edges for label in labels)
            counts.append(alone + sum(architecture.inputs()[choice].chosen or 0 for choice in choices))
        return counts

    def rounds_due(self, finished: int, search_epochs: int, architecture: Architecture) -> int:
        """See the arguments ``decision_start`` and ``decision_every``; what does not fit into the search comes closer together."""
        rounds = self.rounds(architecture)
        every = min(self.decision_every, (_PUBLISHED_EPOCHS - 1 - self.decision_start) / max(1, rounds - 1))
        due = [math.ceil((self.decision_start + index * every + 1) * search_epochs / _PUBLISHED_EPOCHS - 1e-9) for index in range(rounds)]
        return due.count(finished)

    def decisions(self, architecture: Architecture) -> int:
        """An edge and its operation make two."""
        return 2 * sum(self._to_decide(architecture))

    def scored(self, architecture: Architecture) -> list[tuple[int, int | None]]:
        """Operations of the edges that are decided. Which these are shows only then: those with most operations count."""
        entries: list[tuple[int, int | None]] = []
        for count, labels in zip(self._to_decide(architecture), architecture.grouped(architecture.operations()).values()):
            widest = max(labels, key=lambda label: len(architecture.eligible(label)))
            entries += self.operations.scored_operations(architecture, widest) * count
        return entries

    def batch_growth(self, architecture: Architecture) -> int:
        """See the argument ``batch_increase``."""
        return self.batch_increase * architecture.state.memory.get('rounds', 0)

    def observe(self, finished: int, search_epochs: int, architecture: Architecture, relaxation: Relaxation) -> None:
        """Keeps the probabilities of the last epochs."""
        now = {label: _without_none(architecture, relaxation, label)[1].tolist() for label in architecture.operations()}
        architecture.state.memory['probabilities'] = [*architecture.state.memory.get('probabilities', []), now][-self.history - 1 :]

    def decide(self, architecture: Architecture, module: DifferentiableModule) -> list[dict[str, Any]]:
        """See :class:`Selection`."""
        written = []
        for labels in architecture.grouped(architecture.operations()).values():
            undecided = [label for label in labels if label not in architecture.state.fixed and not architecture.view.is_cut(label)]
            if not undecided:
                continue
            table = dict(zip(labels, self._scores(architecture, module.strategy.relaxation, labels)))
            scores = [table[label] for label in undecided]
            allowed = {label: self._allowed(architecture, label) for label in undecided}
            free = [index for index, label in enumerate(undecided) if allowed[label]]
            best = max(free, key=lambda index: (scores[index], -index))
            others = [scores[index] for index in free if index != best]
            written.append(
                {
                    'stage': 'edge',
                    'label': undecided[best],
                    'candidates': undecided,
                    'scores': scores,
                    'choice': undecided[best],
                    'margin': scores[best] - max(others) if others else None,
                    **({'beyond_limits': [label for label in undecided if not allowed[label]]} if len(free) < len(scores) else {}),
                }
            )
            written.append(self.operations.decide_operation(architecture, undecided[best], module, allowed[undecided[best]]))
            self._drop_what_is_not_needed(architecture, undecided[best])
        architecture.state.memory['rounds'] = architecture.state.memory.get('rounds', 0) + 1
        architecture.state.history += written
        return written

    def _allowed(self, architecture: Architecture, label: str) -> list[int]:
        """The operations with which an edge can be decided, and hence kept, within the limits."""
        kept = [edge for edge in (*architecture.state.fixed, label) if edge in architecture.edges]
        return allowed_operations(architecture, label, architecture.eligible(label), kept)

    def _drop_what_is_not_needed(self, architecture: Architecture, decided: str) -> None:
        if decided not in architecture.edges:
            return
        choice, _ = architecture.edges[decided]
        decision = architecture.inputs()[choice]
        edges = decision.edges or ()
        open_inputs = [index for index, edge in enumerate(edges) if edge not in architecture.state.fixed]
        if len(edges) - len(open_inputs) == decision.chosen:
            architecture.state.dropped[choice] = open_inputs

    def _scores(self, architecture: Architecture, relaxation: Relaxation, labels: Sequence[str]) -> list[float]:
        importance, certainty, stability = [], [], []
        for label in labels:
            present, others = _without_none(architecture, relaxation, label)
            importance.append(present)
            entropy = -(others * others.clamp(min=1e-12).log()).sum() / math.log(len(others)) if len(others) > 1 else others.new_zeros(())
            certainty.append(float(1 - entropy))
            before = [others.new_tensor(epoch[label]) for epoch in architecture.state.memory.get('probabilities', [])[:-1]]
            overlaps = [float(torch.minimum(others, past).sum()) for past in before]
            stability.append(sum(overlaps) / len(overlaps) if overlaps else 1.0)
        parts = [_unit(importance), _unit(certainty)] + ([_unit(stability)] if self.greedy_criterion == 2 else [])
        return [math.prod(values) for values in zip(*parts)]


_PUBLISHED_EPOCHS = 50


def _without_none(architecture: Architecture, relaxation: Relaxation, label: str) -> tuple[float, Tensor]:
    """The probability of anything but ``none``, and the other operations' given that. Off the edges of a cell ``none`` is a choice."""
    probabilities = relaxation.probabilities(architecture.alpha(label).detach()).cpu()
    kept = architecture.eligible(label)
    present = probabilities[kept].sum()
    return float(present), probabilities[kept] / present


def _unit(values: Sequence[float]) -> list[float]:
    """Scales to [0, 1]; what is equal everywhere says nothing and becomes one."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 1.0 for value in values]
