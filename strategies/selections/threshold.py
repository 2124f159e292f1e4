"""FairDARTS: edges whose strongest operation is weak are left out (Chu et al., ECCV 2020, section 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nni_darts.strategies.catalogue import ThresholdSettings
from nni_darts.strategies.selections.magnitude import Selection
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['Threshold']

_NONE = 'none'


@typed(settings=ThresholdSettings)
class Threshold(Selection):
    """Discretisation by the size of α, after which each kept edge becomes ``none`` if its probability is below a threshold.

    So a node has zero, one or two inputs, as in the authors' code. Genotypes keep their form: an edge that is left out is a ``none``. Two
    cases are left as they are by magnitude: edges without the candidate ``none``, and cells in which no edge from a cell input would
    remain, because such a cell computes nothing. The latter happens in short searches, in which no probability gets far from one half.

    Args:
        threshold: 0.85 as published; 0 leaves no edge out.
    """

    def __init__(self, threshold: float = 0.85) -> None:
        self.threshold = threshold

    def select(self, architecture: Architecture, relaxation: Relaxation) -> dict[str, Any]:
        """See :class:`Selection`."""
        sample = super().select(architecture, relaxation)
        nodes = {label: decision for label, decision in architecture.inputs().items() if decision.edges}
        for labels in architecture.grouped(nodes).values():
            inputs = min(nodes[label].candidates for label in labels)  # the first node reads the cell's inputs only
            kept, weak = [], []
            for label in labels:
                for index in sample[label]:
                    edge = nodes[label].edges[index]  # type: ignore[index]
                    if self._is_weak(edge, sample[edge], architecture, relaxation):
                        weak.append(edge)
                    else:
                        kept.append(index)
            if any(index < inputs for index in kept):
                sample |= dict.fromkeys(weak, _NONE)
        return sample

    def _is_weak(self, edge: str, chosen: Any, architecture: Architecture, relaxation: Relaxation) -> bool:
        names = architecture.operations()[edge].names
        if edge in architecture.state.fixed or _NONE not in names:
            return False
        probability = relaxation.probabilities(architecture.alpha(edge).detach())[names.index(chosen)]
        return float(probability) < self.threshold
