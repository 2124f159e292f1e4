"""Selections within limits on the cost of the architecture: every decision leaves an architecture within the limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from nni_darts.genotypes.costs import chosen_candidates
from nni_darts.genotypes.neighbours import Choices, Inputs
from nni_darts.genotypes.program import AtMost, Decided, Program
from nni_darts.strategies.architecture import Architecture, InputDecision, OperationDecision
from nni_darts.strategies.relaxations.subsets import subset_weights

__all__ = ['allowed_drops', 'allowed_operations', 'edge_weights', 'program_of', 'strength', 'within_limits']

Tables = Mapping[str, Mapping[Any, float]]
"""Label → operation → probability."""


def program_of(architecture: Architecture) -> Program | None:
    """Returns the integer program of a supernet's choices; None without limits."""
    whole = architecture.limits
    if whole is None:
        return None
    operations = {
        label: tuple(decision.names[index] for index in architecture.eligible(label))
        for label, decision in architecture.operations().items()
    }
    inputs = {
        label: Inputs(tuple(range(decision.candidates)), decision.chosen, decision.edges or ())
        for label, decision in architecture.inputs().items()
    }
    return Program(Choices(operations, inputs), whole.table, whole.limits)


def edge_weights(architecture: Architecture, label: str) -> list[float]:
    """Returns the factor of each input of a node: softmax(β) where edges have weights (PC-DARTS), else one."""
    decision = architecture.inputs()[label]
    if not decision.weighted:
        return [1.0] * decision.candidates
    return architecture.edge_weights(label).tolist()


def within_limits(
    architecture: Architecture,
    sample: dict[str, Any],
    tables: Tables,
    kept: Collection[str] = (),
    skips: tuple[frozenset[tuple[str, Any]], int] | None = None,
) -> dict[str, Any]:
    """Returns the sample if it keeps the limits, and otherwise the strongest one that does.

    The strength of an architecture is the sum of the probabilities of its operations, times the weights of their edges where they have
    some, and of the probabilities of inputs that are no edges of a cell.

    Args:
        architecture: α, the decisions so far, and the limits.
        sample: the strongest sample.
        tables: probabilities of the operations that may be chosen.
        kept: edges that must be chosen.
        skips: candidates of which at most a number may be chosen, and this number. The limits have priority over it.
    """
    program = program_of(architecture)
    if program is None or program.holds(sample):
        return sample
    decided = _decided(architecture, kept)
    # Within the limits, there may be no architecture with so few skip connections.
    rules = [] if skips is None else [AtMost(skips[0], max(skips[1], program.fewest(skips[0], decided)))]
    found = program.best(_scores(architecture, tables), decided, rules)
    if found is None:
        raise RuntimeError('the decisions so far leave no architecture within the limits')
    return found


def strength(architecture: Architecture, tables: Tables, sample: Mapping[str, Any]) -> float:
    """Returns the strength of an architecture, by which :func:`within_limits` compares. Arguments as there; there must be limits."""
    program, scores = program_of(architecture), _scores(architecture, tables)
    assert program is not None
    return sum(scores.get(candidate, 0.0) for candidate in chosen_candidates(program.choices, sample))


def allowed_operations(architecture: Architecture, label: str, candidates: Sequence[int], kept: Collection[str] = ()) -> list[int]:
    """Returns the operations of a label after whose choice an architecture within the limits is left.

    Args:
        architecture: the decisions so far, and the limits.
        label: label of the operations.
        candidates: indices of the operations.
        kept: edges that must be chosen.
    """
    program, names = program_of(architecture), architecture.operations()[label].names
    if program is None:
        return list(candidates)
    before = _decided(architecture, kept)
    return [index for index in candidates if program.possible(replace(before, fixed={**before.fixed, label: names[index]}))]


def allowed_drops(architecture: Architecture, label: str, candidates: Sequence[int]) -> list[int]:
    """Returns the inputs of a label without which an architecture within the limits is left. Arguments as above."""
    program = program_of(architecture)
    if program is None:
        return list(candidates)
    before = _decided(architecture, ())
    gone = list(before.dropped.get(label, ()))
    return [index for index in candidates if program.possible(replace(before, dropped={**before.dropped, label: [*gone, index]}))]


def _decided(architecture: Architecture, kept: Collection[str]) -> Decided:
    names = {label: decision.names for label, decision in architecture.operations().items()}
    fixed = {label: names[label][index] for label, index in architecture.state.fixed.items()}
    return Decided(fixed, architecture.state.dropped, frozenset(kept))


def _scores(architecture: Architecture, tables: Tables) -> dict[tuple[str, Any], float]:
    scores: dict[tuple[str, Any], float] = {}
    for label, decision in architecture.decisions.items():
        if isinstance(decision, OperationDecision):
            choice, index = architecture.edges.get(label, ('', 0))
            factor = edge_weights(architecture, choice)[index] if choice else 1.0
            scores |= {(label, name): factor * value for name, value in tables.get(label, {}).items()}
        elif decision.edges is None and architecture.policy is None:
            scores |= {(label, index): value for index, value in enumerate(_input_strengths(architecture, label, decision))}
    return scores


def _input_strengths(architecture: Architecture, label: str, decision: InputDecision) -> list[float]:
    """Returns the probability of each input, or if any number may be chosen, by how much it exceeds one half."""
    alpha = architecture.logits(label).detach()
    return (torch.sigmoid(alpha) - 0.5 if decision.chosen is None else subset_weights(alpha, decision.chosen)).tolist()
