"""Discretisation by the size of α (Liu et al., ICLR 2019, section 2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nni_darts.genotypes.convolutional import strongest_edges
from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.catalogue import MagnitudeSettings
from nni_darts.strategies.relaxations import Relaxation
from nni_darts.strategies.relaxations.subsets import best_subset
from nni_darts.strategies.selections.limited import edge_weights, within_limits
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.differentiable import DifferentiableModule

NORMAL, SKIP = 'normal', 'skip_connect'

__all__ = ['Magnitude', 'Selection', 'edge_weights', 'normal_skips', 'operation_tables']


class Selection:
    """Reads a discrete architecture out of a searched one. This one by magnitude, and all at once at the end.

    The most probable choice of every label. Where inputs are edges of a cell, a node keeps its strongest edges; an edge is as strong as
    its most probable operation other than ``none`` (times the edge's weight, where it has one), and carries that operation.
    Probabilities come from the softmax over all candidates, ``none`` included. A choice of operation that is no such edge may well
    become ``none``: there it is the only way to leave a connection out (NAS-Bench-201).

    Attributes:
        step_schedule: whether the evaluator's learning rate schedule advances while a selection fine-tunes.
        decides_while_searching: whether decisions are spread over the search, so that it must not end early.
        ranks_paths: whether it compares sampled paths.
        learning_rate_factor: the weights' learning rate while fine-tuning, times that at the start, where the schedule does not advance.

    Decisions already taken (``architecture.state.fixed``, ``architecture.state.dropped``) stand. If the architecture has limits
    (``architecture.limits``) that the strongest choices exceed, those with the largest sum of strengths within the limits are taken.
    """

    step_schedule = True
    decides_while_searching = False
    ranks_paths = False
    learning_rate_factor = 1.0

    def epochs(self, architecture: Architecture) -> int:
        """How many epochs of fine-tuning the selection adds to the search."""
        return 0

    def scored(self, architecture: Architecture) -> list[tuple[int, int | None]]:
        """How many variants of the supernet are scored in all, and on how many validation batches (None: on all)."""
        return []

    def observe(self, finished: int, search_epochs: int, architecture: Architecture, relaxation: Relaxation) -> None:
        """Called after each epoch, before decisions, with the number of epochs that are finished and that of the search."""

    def rounds_due(self, finished: int, search_epochs: int, architecture: Architecture) -> int:
        """Returns the number of rounds of decisions that are due after a number of epochs."""
        return 0

    def decide(self, architecture: Architecture, module: DifferentiableModule) -> list[dict[str, Any]]:
        """One round. Applies the decisions to the architecture and returns what it wrote into ``architecture.state.history`` of each."""
        raise NotImplementedError

    def decisions(self, architecture: Architecture) -> int:
        """How many decisions will have been written down at the end."""
        return 0

    def batch_growth(self, architecture: Architecture) -> int:
        """By how much training batches are larger now than they were at the start."""
        return 0

    def select(self, architecture: Architecture, relaxation: Relaxation) -> dict[str, Any]:
        """An NNI sample: a value for every label of the architecture.

        Raises:
            ArithmeticError: if an α is not finite: the search has diverged.
        """
        for label in architecture.labels():
            if not torch.isfinite(architecture.alpha(label)).all():
                raise ArithmeticError(f'the architecture parameters of {label!r} are not finite: the search has diverged')
        return self._strongest(architecture, operation_tables(architecture, relaxation))

    def _strongest(self, architecture: Architecture, tables: dict[str, dict[Any, float]]) -> dict[str, Any]:
        """The strongest choices within the limits, by tables as of :func:`operation_tables`."""
        # An edge that is decided during the search is kept.
        kept = [label for label in architecture.state.fixed if label in architecture.edges] if self.decides_while_searching else []
        return within_limits(architecture, self._chosen(architecture, tables), tables, kept)

    def _chosen(self, architecture: Architecture, tables: dict[str, dict[Any, float]]) -> dict[str, Any]:
        """The strongest choices, by tables as of :func:`operation_tables`."""
        sample: dict[str, Any] = {label: max(table, key=table.__getitem__) for label, table in tables.items()}
        for label, decision in architecture.inputs().items():
            left = architecture.view.inputs(label)
            if decision.edges is None:
                chosen = best_subset(architecture.logits(label)[left], decision.chosen)
            else:
                factors = edge_weights(architecture, label)
                edges = [_scaled(tables[decision.edges[index]], factors[index]) for index in left]
                chosen = [index for _, index in strongest_edges(edges, decision.chosen)]  # type: ignore[arg-type]
            sample[label] = sorted(left[index] for index in chosen)
        return sample


@typed(settings=MagnitudeSettings)
class Magnitude(Selection):
    """Discretisation by the size of α, after the search: DARTS.

    Args:
        max_skips: how many skip connections a normal cell may have (P-DARTS, Chen et al., ICCV 2019, section 3.3.2). While there are
            more, the weakest of them counts nothing, and the cell is derived again. None does not count them.

    Raises:
        ValueError: for a negative number.
    """

    def __init__(self, max_skips: int | None = None) -> None:
        self.max_skips = max_skips

    def _strongest(self, architecture: Architecture, tables: dict[str, dict[Any, float]]) -> dict[str, Any]:
        given = {label: dict(table) for label, table in tables.items()}  # a skip connection that counts nothing is set to zero
        skips = frozenset(
            (edge, SKIP) for edge in architecture.edges if architecture.decisions[edge].group == NORMAL and SKIP in tables[edge]
        )
        rule = None if self.max_skips is None else (skips, self.max_skips)
        return within_limits(architecture, self._chosen(architecture, given), tables, skips=rule)

    def _chosen(self, architecture: Architecture, tables: dict[str, dict[Any, float]]) -> dict[str, Any]:
        while True:
            sample = super()._chosen(architecture, tables)
            if self.max_skips is None:
                return sample
            kept = [decision.edges[index] for label, decision in architecture.inputs().items() for index in sample[label] if decision.edges]
            skips = [edge for edge in kept if architecture.decisions[edge].group == NORMAL and sample[edge] == SKIP]
            weak = [edge for edge in skips if tables[edge][SKIP] > 0]  # one that counts nothing stays where there is no other
            if len(skips) <= self.max_skips or not weak:
                return sample
            tables[min(weak, key=lambda edge: tables[edge][SKIP])][SKIP] = 0.0


def _scaled(table: dict[Any, float], factor: float) -> dict[Any, float]:
    return {name: factor * value for name, value in table.items()}


def normal_skips(architecture: Architecture, sample: dict[str, Any]) -> int:
    """Returns the number of skip connections of a sample: on kept edges of the normal cell, or of all cells in a space with one kind."""
    kept = [decision.edges[index] for label, decision in architecture.inputs().items() if decision.edges for index in sample[label]]
    labels = kept or list(architecture.operations())
    if any(decision.group == NORMAL for decision in architecture.decisions.values()):
        labels = [label for label in labels if architecture.decisions[label].group == NORMAL]
    return sum(sample[label] == SKIP for label in labels)


def operation_tables(architecture: Architecture, relaxation: Relaxation) -> dict[str, dict[Any, float]]:
    """Label → operation → probability, of the operations a decision may choose: a decided one alone, ``none`` not on an edge of a cell."""
    tables = {}
    for label, decision in architecture.operations().items():
        if label in architecture.state.fixed:
            tables[label] = {decision.names[architecture.state.fixed[label]]: 1.0}
            continue
        probabilities = relaxation.probabilities(architecture.alpha(label)).tolist()
        tables[label] = {decision.names[index]: probabilities[index] for index in architecture.eligible(label)}
    return tables
