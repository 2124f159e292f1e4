"""Discretisation by the size of α (Liu et al., ICLR 2019, section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from nni_darts.genotype import strongest_edges
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxations.subsets import best_subset

__all__ = ['Magnitude', 'Selection']


class Selection(Protocol):
    """Reads a discrete architecture out of a searched one."""

    def select(self, architecture: Architecture, relaxation: Relaxation) -> dict[str, Any]:
        """An NNI sample: a value for every label of the architecture."""
        ...


@dataclass(frozen=True)
class Magnitude:
    """The most probable choice of every label.

    Where inputs are edges of a cell, a node keeps its strongest edges; an edge is as strong as its most probable operation other than
    ``none``, and carries that operation. Probabilities come from the softmax over all candidates, ``none`` included. A choice of
    operation that is no such edge may well become ``none``: there it is the only way to leave a connection out (NAS-Bench-201).
    """

    def select(self, architecture: Architecture, relaxation: Relaxation) -> dict[str, Any]:
        """See :class:`Selection`.

        Raises:
            ValueError: if an α is not finite: the search has diverged.
        """
        for label in architecture.labels():
            if not torch.isfinite(architecture.alpha(label)).all():
                raise ValueError(f'the architecture parameters of {label!r} are not finite: the search has diverged')
        tables = {
            label: dict(zip(decision.names, relaxation.probabilities(architecture.alpha(label)).tolist()))
            for label, decision in architecture.operations().items()
        }
        inputs = architecture.inputs()
        edges = {edge for decision in inputs.values() for edge in decision.edges or ()}
        sample: dict[str, Any] = {}
        for label, table in tables.items():
            eligible = {name: value for name, value in table.items() if name != 'none'} if label in edges else table
            sample[label] = max(eligible, key=eligible.__getitem__)
        for label, decision in inputs.items():
            if decision.edges is None:
                chosen = best_subset(architecture.alpha(label), decision.chosen)
            else:
                chosen = sorted(index for _, index in strongest_edges([tables[edge] for edge in decision.edges], decision.chosen))
            sample[label] = chosen
        return sample
