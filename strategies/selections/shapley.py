"""Selection by Shapley values (Xiao et al., CVPR 2022): the mean contribution of an operation decides, not the size of α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.catalogue import ShapleySettings
from nni_darts.strategies.selections.contributions import Contributions, players_of
from nni_darts.strategies.selections.magnitude import edge_weights, operation_tables
from nni_darts.strategies.selections.progressive import Progressive, wide_inputs
from nni_darts.strategies.selections.scoring import Scoring
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

__all__ = ['Shapley']


@typed(settings=ShapleySettings)
class Shapley(Progressive):
    """Keeps the operations with the largest Shapley values, all at once after the search; one epoch of fine-tuning follows.

    In each of several random orders of all operations, they are left out of the supernet one after the other, and the others keep their
    weights. A value is the mean over orders of the score before an operation is left out, less that after, and less the standard deviation.
    Nodes of a cell keep the inputs whose best operation has the largest value, times the weight of the edge where it has one; other inputs
    follow from α. Limits are kept as by magnitude.

    The paper trains α by these values during the search. Here they select from the supernet of any strategy. With SGAS, an edge that is due
    keeps the operation with the largest value among those of that edge.

    Args:
        permutations, truncation: as for :class:`.Contributions`.
        criterion, batch_norm, batches: as for :class:`Scoring`.
    """

    def __init__(
        self,
        *,
        permutations: int = 10,
        truncation: float = 0.5,
        criterion: Literal['accuracy', 'loss'] = 'accuracy',
        batch_norm: Literal['train', 'eval'] = 'train',
        batches: int | None = 1,
    ) -> None:
        super().__init__()
        self.contributions = Contributions(Scoring(criterion, batch_norm, batches), permutations, truncation)

    def events(self, architecture: Architecture) -> int:
        """Returns 1: all decisions are taken at once."""
        return 1

    def epochs(self, architecture: Architecture) -> int:
        """Returns 1: the supernet is fine-tuned for one epoch."""
        return 1

    def scored(self, architecture: Architecture) -> list[tuple[int, int | None]]:
        """See :class:`Selection`. What truncation saves is not deducted."""
        return [self._cost(len(players_of(architecture, architecture.operations())))]

    def scored_operations(self, architecture: Architecture, label: str) -> list[tuple[int, int | None]]:
        """See :class:`Progressive`."""
        return [self._cost(len(architecture.eligible(label)))]

    def _cost(self, players: int) -> tuple[int, int | None]:
        return 1 + self.contributions.permutations * players, self.contributions.scoring.batches

    def decide(self, architecture: Architecture, module: DifferentiableModule) -> list[dict[str, Any]]:
        """See :class:`Selection`."""
        operations, tables = architecture.operations(), operation_tables(architecture, module.strategy.relaxation)
        undecided = [label for label in operations if label not in architecture.state.fixed]
        players = players_of(architecture, undecided)
        for (label, index), value in self.contributions.values(architecture, players, module).items():
            tables[label][operations[label].names[index]] = value
        sample, written = self._strongest(architecture, tables), []
        for label in undecided:
            written.append(_record('operation', label, tables[label], sample[label]))
        for label, decision in wide_inputs(architecture).items():
            alpha, factors = None if decision.edges else architecture.alpha(label).tolist(), edge_weights(architecture, label)
            strengths = {
                index: factors[index] * max(tables[decision.edges[index]].values()) if decision.edges else alpha[index]  # type: ignore[index]
                for index in architecture.view.inputs(label)
            }
            for index in sorted(set(strengths) - set(sample[label]), key=strengths.__getitem__):
                written.append(_record('topology', label, strengths, index))
                architecture.state.dropped.setdefault(label, []).append(index)
                del strengths[index]
        architecture.state.fixed |= {label: operations[label].names.index(sample[label]) for label in undecided}
        architecture.state.history += written
        return written

    def score(self, architecture: Architecture, label: str, candidates: Sequence[int], module: DifferentiableModule) -> list[float]:
        """See :class:`Progressive`: minus the value of each candidate among those of one label."""
        values = self.contributions.values(architecture, [(label, index) for index in candidates], module)
        return [-values[label, index] for index in candidates]


def _record(stage: str, label: str, strengths: Mapping[Any, float], choice: Any) -> dict[str, Any]:
    """Returns the record of an operation that is kept, or an input that is dropped. Scores are minus the values, as for perturbations."""
    others, named = [value for candidate, value in strengths.items() if candidate != choice], stage == 'operation'
    margin = None
    if others:
        margin = strengths[choice] - max(others) if named else min(others) - strengths[choice]
    return {
        'stage': stage,
        'label': label,
        'candidates': [str(candidate) if named else candidate for candidate in strengths],
        'scores': [-value for value in strengths.values()],
        'choice': str(choice) if named else choice,
        'margin': margin,
    }
