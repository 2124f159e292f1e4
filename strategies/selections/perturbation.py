"""Perturbation-based selection (Wang et al., ICLR 2021): what the supernet loses without a choice decides, not the size of α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from nni_darts.strategies.architecture import Architecture, InputDecision, Mask
from nni_darts.strategies.catalogue import PerturbationSettings, ProgressiveSettings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.selections.limited import allowed_drops, allowed_operations
from nni_darts.strategies.selections.magnitude import Magnitude, Selection, edge_weights, operation_tables
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.selections.sharing import SharedResults
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Perturbation', 'Progressive', 'ProgressiveMagnitude']


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
        return _most(architecture.grouped(architecture.operations())) + _most(architecture.grouped(_wide_inputs(architecture)))

    def epochs(self, architecture: Architecture) -> int:
        """See :class:`Selection`: 14 edges and 3 nodes make 5·(14 + 3 − 1) + 1 = 81 epochs, the 6 edges of NAS-Bench-201 5·(6 − 1) = 25.

        Without a topology stage there is one less, as published.
        """
        events = self.events(architecture)
        return self.epochs_between * (events - 1) + bool(_wide_inputs(architecture)) if events else 0

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
        early = not _wide_inputs(architecture) and self.epochs_between > 1
        return max(0, tuned - early)

    def _decided(self, architecture: Architecture) -> bool:
        wide = _wide_inputs(architecture).items()
        return all(label in architecture.state.fixed for label in architecture.operations()) and all(
            len(architecture.view.inputs(label)) <= _keeps(decision) for label, decision in wide
        )

    def decisions(self, architecture: Architecture) -> int:
        """Every operation, and every input that is dropped."""
        dropped = sum(decision.candidates - _keeps(decision) for decision in _wide_inputs(architecture).values())
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
                label for label, decision in _wide_inputs(architecture).items() if len(architecture.view.inputs(label)) > _keeps(decision)
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
        while len(architecture.view.inputs(label)) > _keeps(decision):
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


@typed(settings=PerturbationSettings)
class Perturbation(Progressive):
    """DARTS-PT: a candidate is masked alone, the others keep their weights, and the supernet is validated.

    Args:
        criterion, batch_norm, batches: as for :class:`Scoring`; the authors' are the defaults.
        renormalise: divide the weights of an edge's other operations by their sum. The authors do not.
        rescore_inputs: False, as published, scores each input of a node once, masked alone with all other inputs present, and drops the
            weakest. (The authors' loop removes one input at a time from its list, but never from the supernet that it scores.) True
            scores the inputs that are left again after each drop, without those dropped; nodes with 4 or 5 inputs may then keep others.
        settings: as for :class:`Progressive`.

    For each batch, whatever does not depend on the choice being scored is computed once for all candidates
    (:class:`~nni_darts.strategies.selections.sharing.SharedResults`); the scores are those of full passes, bit for bit.

    Raises:
        ArithmeticError: while scoring, if a validation loss is not finite.
    """

    def __init__(
        self,
        *,
        criterion: Literal['accuracy', 'loss'] = 'accuracy',
        batch_norm: Literal['train', 'eval'] = 'train',
        batches: int | None = None,
        renormalise: bool = False,
        rescore_inputs: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.scoring = Scoring(criterion, batch_norm, batches)
        self.renormalise = renormalise
        self.rescore_inputs = rescore_inputs

    def scored_operations(self, architecture: Architecture, label: str) -> list[tuple[int, int | None]]:
        """See :class:`Progressive`: every operation."""
        return [(len(architecture.eligible(label)), self.scoring.batches)]

    def scored(self, architecture: Architecture) -> list[tuple[int, int | None]]:
        """Every operation, and every input of a node that drops some, once or, where inputs are scored again, after each drop."""
        operations = [entry for label in architecture.operations() for entry in self.scored_operations(architecture, label)]
        rounds = [
            range(_keeps(decision) + 1 if self.rescore_inputs else decision.candidates, decision.candidates + 1)
            for decision in _wide_inputs(architecture).values()
        ]
        return [*operations, *((sum(counts), self.scoring.batches) for counts in rounds)]

    def score(self, architecture: Architecture, label: str, candidates: Sequence[int], module: DifferentiableModule) -> list[float]:
        """See :class:`Progressive`: the accuracy, or minus the loss, without each candidate."""
        variants = [partial(architecture.viewed, mask=Mask(label, candidate, self.renormalise)) for candidate in candidates]
        return self.scoring.scores(module, label, variants, partial(SharedResults, module.model, architecture, label))


class ProgressiveMagnitude(Progressive):
    """PT-Mag: the same progressive tuning, decided by the size of α (Wang et al., section 4.3)."""

    def score(self, architecture: Architecture, label: str, candidates: Sequence[int], module: DifferentiableModule) -> list[float]:
        """Minus the probability of an operation; minus the strength of an input."""
        tables = operation_tables(architecture, module.strategy.relaxation)
        decision = architecture.decisions[label]
        if not isinstance(decision, InputDecision):
            return [-tables[label][decision.names[index]] for index in candidates]
        if decision.edges is None:
            return [-float(architecture.alpha(label)[index]) for index in candidates]
        # A decided edge has one operation; its strength is the probability that α still gives it.
        relaxation, factors = module.strategy.relaxation, edge_weights(architecture, label)
        scores = []
        for index in candidates:
            edge = decision.edges[index]
            scores.append(
                -factors[index] * float(relaxation.probabilities(architecture.alpha(edge).detach())[architecture.state.fixed[edge]])
            )
        return scores


def _draw(count: int) -> int:
    """A number below ``count`` from torch's generator, whose state is in the checkpoint."""
    return int(torch.randint(count, ()))


def _keeps(decision: InputDecision) -> int:
    return decision.chosen or 1


def _wide_inputs(architecture: Architecture) -> dict[str, InputDecision]:
    """The InputChoices with more inputs than they keep. One that may keep any number is decided by α."""
    return {
        label: decision for label, decision in architecture.inputs().items() if decision.chosen and decision.candidates > decision.chosen
    }


def _most(groups: Mapping[str, Sequence[str]]) -> int:
    return max(map(len, groups.values()), default=0)
