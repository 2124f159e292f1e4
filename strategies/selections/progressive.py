"""Selections that decide one after the other in a supernet that is fine-tuned in between (Wang et al., ICLR 2021, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from nni_darts.strategies.architecture import Architecture, InputDecision
from nni_darts.strategies.catalogue import ProgressiveSettings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.selections.limited import allowed_drops, allowed_operations
from nni_darts.strategies.selections.magnitude import Magnitude, Selection, operation_tables
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Progressive', 'keeps', 'wide_inputs']


@typed(settings=ProgressiveSettings)
class Progressive(Selection):
    """Takes the decisions one by one after the search, with fine-tuning between them (Wang et al., algorithm 1).

    First the operations: per event one undecided edge of each kind of cell, drawn at random, is decided; decisions of one event apply
    at once, one after the other. Then the topology: per event one node of each kind with more inputs than it may keep loses the weakest
    inputs. Ties keep the first candidate, and the first inputs. If the architecture has limits, decisions that leave no architecture
    within them are not taken.

    Args:
        epochs_between: epochs of fine-tuning between two events; one more follows the last event. Without a topology stage that event comes
            an epoch early, as in the authors' code for NAS-Bench-201.
        learning_rate_factor: the weights' learning rate while tuning, times that at the start of the search. The optimizer starts anew.
        step_schedule: step the evaluator's learning rate schedule while tuning; the authors build one and never step it.

    Attributes:
        rescore_inputs: whether the inputs that are left are scored again after each one that is dropped.

    Raises:
        ValueError: for a setting outside its range.
    """

    rescore_inputs = False

    def __init__(self, *, epochs_between: int = 5, learning_rate_factor: float = 0.1, step_schedule: bool = False) -> None:
        self.epochs_between = epochs_between
        self.learning_rate_factor = learning_rate_factor
        self.step_schedule = step_schedule

    def events(self, architecture: Architecture) -> int:
        """How many rounds of decisions there are from the start."""
        return _most(architecture.grouped(architecture.operations())) + _most(architecture.grouped(wide_inputs(architecture)))

    def epochs(self, architecture: Architecture) -> int:
        """See :class:`Selection`: 14 edges and 3 nodes make 5·(14 + 3 − 1) + 1 = 81 epochs, the 6 edges of NAS-Bench-201 5·(6 − 1) = 25.

        Without a topology stage there is one less, as published.
        """
        events = self.events(architecture)
        return self.epochs_between * (events - 1) + bool(wide_inputs(architecture)) if events else 0

    def observe(self, finished: int, search_epochs: int, architecture: Architecture, relaxation: Relaxation) -> None:
        """Notes what magnitude would choose as the search ends."""
        if finished == search_epochs:
            architecture.state.by_magnitude = Magnitude().select(architecture, relaxation)

    def rounds_due(self, finished: int, search_epochs: int, architecture: Architecture) -> int:
        """The first event is at the end of the search; the last one is an epoch before the end of tuning, as published.

        Only an epoch between two events leaves no room for that where there is no topology stage: there the last event ends the tuning.
        """
        tuned, last = finished - search_epochs, self._last_event(architecture)
        if 0 <= tuned < last:
            return int(tuned % self.epochs_between == 0)
        # After its date the last event is due in a checkpoint of a version that had it later.
        return int(tuned >= 0 and not self._decided(architecture))

    def _last_event(self, architecture: Architecture) -> int:
        """After how many epochs of tuning it comes."""
        tuned = self.epochs_between * (self.events(architecture) - 1)
        early = not wide_inputs(architecture) and self.epochs_between > 1
        return max(0, tuned - early)

    def _decided(self, architecture: Architecture) -> bool:
        wide = wide_inputs(architecture).items()
        return all(label in architecture.state.fixed for label in architecture.operations()) and all(
            len(architecture.view.inputs(label)) <= keeps(decision) for label, decision in wide
        )

    def decisions(self, architecture: Architecture) -> int:
        """Every operation, and every input that is dropped."""
        dropped = sum(decision.candidates - keeps(decision) for decision in wide_inputs(architecture).values())
        return len(architecture.operations()) + dropped

    def decide(self, architecture: Architecture, module: DifferentiableModule) -> list[dict[str, Any]]:
        """See :class:`Selection`."""
        written = []
        undecided = [label for label in architecture.operations() if label not in architecture.state.fixed]
        if undecided:
            for labels in architecture.grouped(undecided).values():
                written.append(self.decide_operation(architecture, labels[_draw(len(labels))], module))
        else:
            wide = [
                label for label, decision in wide_inputs(architecture).items() if len(architecture.view.inputs(label)) > keeps(decision)
            ]
            for labels in architecture.grouped(wide).values():
                written += self._decide_inputs(architecture, labels[_draw(len(labels))], module)
        architecture.state.history += written
        return written

    def decide_operation(
        self, architecture: Architecture, label: str, module: DifferentiableModule, allowed: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Keeps one operation of a label; returns what there is to write down.

        Args:
            architecture: α and the decisions so far.
            label: label of the operations.
            module: module of the search.
            allowed: indices of the operations that may be kept; None for all that leave an architecture within the limits.
        """
        names = architecture.operations()[label].names
        candidates = [names.index(name) for name in operation_tables(architecture, module.strategy.relaxation)[label]]
        scores = self.score(architecture, label, candidates, module)
        allowed = allowed_operations(architecture, label, candidates) if allowed is None else allowed
        free = [position for position, index in enumerate(candidates) if index in allowed]
        worst = min(free, key=scores.__getitem__)  # the loss of this one hurts most; the first of equals
        architecture.state.fixed[label] = candidates[worst]
        others = [scores[position] for position in free if position != worst]
        return {
            'stage': 'operation',
            'label': label,
            'candidates': [str(names[index]) for index in candidates],
            'scores': scores,
            'choice': str(names[candidates[worst]]),
            'margin': min(others) - scores[worst] if others else None,
            **({'beyond_limits': [str(names[index]) for index in candidates if index not in allowed]} if len(free) < len(scores) else {}),
        }

    def _decide_inputs(self, architecture: Architecture, label: str, module: DifferentiableModule) -> list[dict[str, Any]]:
        decision = architecture.inputs()[label]
        written: list[dict[str, Any]] = []
        known: dict[int, float] = {}
        while len(architecture.view.inputs(label)) > keeps(decision):
            candidates = architecture.view.inputs(label)
            if self.rescore_inputs or not written:
                known = dict(zip(candidates, self.score(architecture, label, candidates, module)))
            scores = [known[index] for index in candidates]
            # The input whose loss hurts least goes; of equals the last, so that the first stay.
            allowed = allowed_drops(architecture, label, candidates)
            free = [position for position, index in enumerate(candidates) if index in allowed]
            best = max(free, key=lambda position: (scores[position], position))
            architecture.state.dropped.setdefault(label, []).append(candidates[best])
            others = [scores[position] for position in free if position != best]
            written.append(
                {
                    'stage': 'topology',
                    'label': label,
                    'candidates': candidates,
                    'scores': scores,
                    'choice': candidates[best],
                    'margin': scores[best] - max(others) if others else None,
                    **({'beyond_limits': [index for index in candidates if index not in allowed]} if len(free) < len(scores) else {}),
                }
            )
        return written

    def scored_operations(self, architecture: Architecture, label: str) -> list[tuple[int, int | None]]:
        """Returns the candidates to score for the operation of a label, as in :meth:`scored`."""
        return []

    def score(self, architecture: Architecture, label: str, candidates: Sequence[int], module: DifferentiableModule) -> list[float]:
        """How good the supernet is without each candidate of a label; larger is better."""
        raise NotImplementedError


def _draw(count: int) -> int:
    """A number below ``count`` from torch's generator, whose state is in the checkpoint."""
    return int(torch.randint(count, ()))


def keeps(decision: InputDecision) -> int:
    """Returns the number of inputs that a decision keeps."""
    return decision.chosen or 1


def wide_inputs(architecture: Architecture) -> dict[str, InputDecision]:
    """Returns the InputChoices with more inputs than they keep. One that may keep any number is decided by α."""
    return {
        label: decision for label, decision in architecture.inputs().items() if decision.chosen and decision.candidates > decision.chosen
    }


def _most(groups: Mapping[str, Sequence[str]]) -> int:
    return max(map(len, groups.values()), default=0)
