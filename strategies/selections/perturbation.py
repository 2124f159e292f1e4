"""Perturbation-based selection (Wang et al., ICLR 2021): what the supernet loses without a choice decides, not the size of α."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from nni_darts.strategies.architecture import Architecture, InputDecision, Mask
from nni_darts.strategies.catalogue import PerturbationSettings
from nni_darts.strategies.selections.magnitude import edge_weights, operation_tables
from nni_darts.strategies.selections.progressive import Progressive, keeps, wide_inputs
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.selections.sharing import SharedResults
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Perturbation', 'Progressive', 'ProgressiveMagnitude']


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
            range(keeps(decision) + 1 if self.rescore_inputs else decision.candidates, decision.candidates + 1)
            for decision in wide_inputs(architecture).values()
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
