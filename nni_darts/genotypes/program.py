"""The best architecture of a space below limits on its cost, by an integer program. Imports no torch, and scipy only to solve.

A variable in {0, 1} stands for each candidate: an operation, or on an edge of a cell an operation together with its input. The rules of
the space are linear in these variables: one operation for each label, at most one on each edge, and the right number of inputs. So are
costs that add up (:class:`~nni_darts.genotypes.costs.CostTable`), and the score to maximise. Where a cost depends on several choices
together, a further variable stands for each combination of their candidates, and is 1 exactly where all of them are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from nni_darts.genotypes.costs import DECIMALS, CostTable, JointCosts, chosen_candidates
from nni_darts.genotypes.neighbours import Choices, Inputs, Sample

if TYPE_CHECKING:
    import numpy as np

__all__ = ['AtMost', 'Decided', 'Program', 'Scores']

Candidate = tuple[str, Any]
"""(label, value) of an operation or an input."""

Scores = Mapping[Candidate, float]
"""Candidate → what it adds to the score of an architecture in which it is chosen; 0 if it is missing."""

_SPREAD = 1e4
"""Largest score given to the solver, whose absolute tolerance is 1e-6."""

_MOST_SOLUTIONS = 100


@dataclass(frozen=True)
class Decided:
    """Decisions that an architecture must agree with.

    Attributes:
        fixed: label → the only candidate that is left; on an edge, only if the edge is chosen.
        dropped: label of a choice of inputs → inputs that must not be chosen.
        kept: labels of edges that must be chosen.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()


class AtMost(NamedTuple):
    """A rule that at most ``most`` of these candidates are chosen."""

    candidates: frozenset[Candidate]
    most: int


class _Problem(NamedTuple):
    """Rows ``lower ≤ A x ≤ upper``."""

    rows: list[np.ndarray[Any, Any]]
    lower: list[float]
    upper: list[float]

    def add(self, row: np.ndarray[Any, Any], lower: float, upper: float) -> None:
        self.rows.append(row)
        self.lower.append(lower)
        self.upper.append(upper)


@dataclass(frozen=True)
class Program:
    """Limits on the cost of the architectures of a space, and the best of the architectures that keep them.

    Attributes:
        choices: choices of the space, or those that are left of them.
        table: costs of the candidates.
        limits: measure → largest cost that is allowed.

    Example:
        >>> table = CostTable({'parameters': 10}, {'a': {'conv': {'parameters': 9}, 'skip': {'parameters': 0}}})
        >>> program = Program(Choices({'a': ('conv', 'skip')}), table, {'parameters': 12})
        >>> program.best({('a', 'conv'): 0.9, ('a', 'skip'): 0.1})
        {'a': 'skip'}
    """

    choices: Choices
    table: CostTable
    limits: Mapping[str, float]

    def holds(self, sample: Sample) -> bool:
        """Returns whether the network of an NNI sample keeps the limits."""
        costs = self.table.of(self.choices, sample)
        return all(costs[measure] <= limit for measure, limit in self.limits.items())

    def best(self, scores: Scores, decided: Decided | None = None, rules: Sequence[AtMost] = ()) -> dict[str, Any] | None:
        """Returns the NNI sample with the largest sum of scores within the limits; None if no sample is within them.

        Args:
            scores: scores of the candidates.
            decided: decisions that the sample must agree with.
            rules: further rules.

        Returns:
            A value for every label. Operations on edges that are not chosen are those with the largest score.
        """
        goal = [scores.get(candidate, 0.0) for candidate in self._candidates]
        return self._solved(goal + [0.0] * self._combinations.count, decided or Decided(), rules)

    def possible(self, decided: Decided | None = None) -> bool:
        """Returns whether any architecture that agrees with the decisions keeps the limits."""
        return self.best({}, decided) is not None

    def cheapest(self, measure: str, *, within_limits: bool = False) -> float:
        """Returns the smallest cost of any architecture of the space.

        Args:
            measure: the cost.
            within_limits: whether the architecture must keep the limits, which must be possible; otherwise they do not matter.
        """
        free = self if within_limits else Program(self.choices, self.table, {})
        sample = free._solved([-cost for cost in self._costs(measure)], Decided(), ())
        assert sample is not None  # there are no limits, or they can be kept
        return free.table.of(self.choices, sample)[measure]

    def fewest(self, candidates: frozenset[Candidate], decided: Decided | None = None) -> int:
        """Returns how many of these candidates an architecture that keeps the limits must have at least."""
        sample = self.best(dict.fromkeys(candidates, -1.0), decided)
        return 0 if sample is None else sum(candidate in candidates for candidate in chosen_candidates(self.choices, sample))

    @cached_property
    def _edges(self) -> dict[str, tuple[str, Any]]:
        """Label of an edge → (label of the choice of inputs, its input)."""
        return {edge: (label, value) for label, inputs in self.choices.inputs.items() for value, edge in zip(inputs.values, inputs.edges)}

    @cached_property
    def _candidates(self) -> list[Candidate]:
        """All variables; inputs that are edges of a cell have none of their own."""
        operations = [(label, value) for label, values in self.choices.operations.items() for value in values]
        return operations + [(label, value) for label, inputs in self.choices.inputs.items() if not inputs.edges for value in inputs.values]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Label → positions of its variables."""
        places: dict[str, list[int]] = {label: [] for label in (*self.choices.operations, *self.choices.inputs)}
        for position, (label, _) in enumerate(self._candidates):
            places[label].append(position)
        return places

    @cached_property
    def _combinations(self) -> _Combinations:
        return _Combinations(self.choices, self.table.joint, self._places)

    def _costs(self, measure: str) -> list[float]:
        """Returns what each variable adds to a cost."""
        return [self.table.added(*candidate).get(measure, 0) for candidate in self._candidates] + self._combinations.costs(measure)

    def _solved(self, scores: Sequence[float], decided: Decided, rules: Sequence[AtMost]) -> dict[str, Any] | None:
        """Returns the sample with the largest sum of the scores of all variables, which are those of candidates and of combinations."""
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp

        problem = _Problem([], [], [])
        allowed = [float(self._allowed(candidate, decided)) for candidate in self._candidates]
        for positions, lower, upper in self._rules_of_the_space(decided):
            problem.add(self._row(positions), lower, upper)
        for rule in rules:
            held = [position for position, candidate in enumerate(self._candidates) if candidate in rule.candidates]
            problem.add(self._row(held), 0, rule.most)
        for measure, limit in self.limits.items():
            row, most = _without_common_factor(self._costs(measure), limit, self.table.fixed[measure])
            problem.add(np.array(row, dtype=float), -np.inf, most)
        largest = max(map(abs, scores), default=0.0) or 1.0
        goal = -np.array(scores) * (_SPREAD / largest)
        combined = self._combinations.count
        # Where candidates are whole numbers, so are their combinations, which would make the search for a solution slower.
        whole = np.array([1.0] * len(allowed) + [0.0] * combined)
        bounds = Bounds(0, np.array(allowed + [1.0] * combined))
        # With its presolve, HiGHS prints a line where variables are not whole numbers.
        options = {'mip_rel_gap': 0, 'presolve': not combined}
        linked = [] if self._combinations.links is None else [LinearConstraint(self._combinations.links, 0, 0)]
        for _ in range(_MOST_SOLUTIONS):
            constraints = [LinearConstraint(np.stack(problem.rows), problem.lower, problem.upper), *linked]
            found = milp(goal, integrality=whole, bounds=bounds, constraints=constraints, options=options)
            if found.x is None:
                if found.status != 2:
                    raise RuntimeError(f'the integer program has no solution: {found.message}')
                return None
            chosen = np.round(found.x * whole).astype(bool)
            sample = self._sample(chosen, scores, decided)
            if self.holds(sample):
                return sample
            # The solver's tolerance let this solution pass; no other one is lost with it.
            problem.add(chosen.astype(float), -np.inf, float(chosen.sum()) - 1)
        raise RuntimeError('the integer program found no solution that keeps the limits exactly')

    def _allowed(self, candidate: Candidate, decided: Decided) -> bool:
        label, value = candidate
        if label in self.choices.inputs:
            return value not in decided.dropped.get(label, ())
        if label in self._edges:
            choice, source = self._edges[label]
            if source in decided.dropped.get(choice, ()):
                return False
        return label not in decided.fixed or decided.fixed[label] == value

    def _rules_of_the_space(self, decided: Decided) -> Iterator[tuple[list[int], float, float]]:
        """Yields positions of variables with the smallest and the largest sum."""
        for label in self.choices.operations:
            yield self._places[label], float(label not in self._edges or label in decided.kept), 1.0
        for label, inputs in self.choices.inputs.items():
            positions = [position for edge in inputs.edges for position in self._places[edge]] or self._places[label]
            yield positions, *((1.0, float(len(inputs.values))) if inputs.chosen is None else (float(inputs.chosen), float(inputs.chosen)))

    def _row(self, positions: Sequence[int]) -> np.ndarray[Any, Any]:
        import numpy as np

        row = np.zeros(len(self._candidates) + self._combinations.count)
        row[list(positions)] = 1.0
        return row

    def _sample(self, chosen: Sequence[bool], scores: Sequence[float], decided: Decided) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        for label, values in self.choices.operations.items():
            positions = self._places[label]
            taken = [value for position, value in zip(positions, values) if chosen[position]]
            of_value = {value: scores[position] for position, value in zip(positions, values)}
            sample[label] = taken[0] if taken else decided.fixed.get(label, max(values, key=of_value.__getitem__))
        for label, inputs in self.choices.inputs.items():
            sample[label] = [value for value, taken in zip(inputs.values, self._taken(label, inputs, chosen)) if taken]
        return sample

    def _taken(self, label: str, inputs: Inputs, chosen: Sequence[bool]) -> list[bool]:
        if inputs.edges:
            return [any(chosen[position] for position in self._places[edge]) for edge in inputs.edges]
        return [chosen[position] for position in self._places[label]]


class _Combinations:
    """The variables of combinations, which follow those of candidates.

    Candidates of a choice that always cost the same together with all others share their combinations.
    """

    def __init__(self, choices: Choices, joint: Sequence[JointCosts], places: Mapping[str, Sequence[int]]) -> None:
        import numpy as np

        self.count = 0
        self._amounts: dict[str, list[float]] = {}
        candidates, rows = sum(map(len, places.values())), []
        for part in joint:
            sizes = [len(values) for values in part.values.values()]
            amounts = {measure: np.array(of, dtype=float).reshape(sizes) for measure, of in part.amounts.items()}
            groups = []
            for axis, label in enumerate(part.values):
                left = [part.position(label, value) for value in choices.operations[label]]
                amounts = {measure: of.take(left, axis) for measure, of in amounts.items()}
                alike = np.concatenate([np.moveaxis(of, axis, 0).reshape(len(left), -1) for of in amounts.values()], 1)
                _, first, group = np.unique(alike, axis=0, return_index=True, return_inverse=True)
                amounts = {measure: of.take(first, axis) for measure, of in amounts.items()}
                groups.append(group.reshape(-1))
            shape = next(iter(amounts.values())).shape
            positions = candidates + self.count + np.arange(math.prod(shape)).reshape(shape)
            for axis, label in enumerate(part.values):
                for index in range(shape[axis]):
                    chosen = [place for place, group in zip(places[label], groups[axis]) if group == index]
                    rows.append((positions.take(index, axis).reshape(-1), chosen))
            self.count += math.prod(shape)
            for measure, of in amounts.items():
                self._amounts.setdefault(measure, []).extend(of.reshape(-1).tolist())
        self.links = _links(rows, candidates + self.count) if rows else None

    def costs(self, measure: str) -> list[float]:
        """Returns what each combination adds to a cost."""
        return self._amounts.get(measure, [0.0] * self.count)


def _links(rows: Sequence[tuple[Any, Sequence[int]]], columns: int) -> Any:
    """Returns a sparse matrix whose product with the variables is 0 if each candidate is chosen as often as its combinations are.

    Args:
        rows: positions of all combinations with a group of candidates, and of these candidates.
        columns: number of variables.
    """
    import numpy as np
    from scipy.sparse import csr_array

    places = [np.concatenate([combined, np.array(chosen, dtype=int)]) for combined, chosen in rows]
    signs = [np.concatenate([np.ones(len(combined)), -np.ones(len(chosen))]) for combined, chosen in rows]
    ends = np.cumsum([0, *map(len, places)])
    return csr_array((np.concatenate(signs), np.concatenate(places), ends), shape=(len(rows), columns))


def _without_common_factor(costs: Sequence[float], limit: float, fixed: float) -> tuple[Sequence[float], float]:
    """Returns costs as small whole numbers for the solver, and the largest sum of them that keeps a limit.

    Amounts have at most :data:`DECIMALS` decimals (milliseconds have), so they are whole numbers in the last of these decimals. They are
    divided by their greatest common divisor.

    Args:
        costs: what each candidate adds.
        limit: the limit, with any number of decimals.
        fixed: what all networks cost.
    """
    scale = 1 if all(float(cost).is_integer() for cost in (*costs, fixed)) else 10**DECIMALS
    units = [round(cost * scale) for cost in costs]
    divisor = reduce(math.gcd, units, 0) or 1
    # Rounded first, because a product such as 0.3 · 10⁶ may lie just below its whole number.
    most = math.floor(round(limit * scale, 3)) - round(fixed * scale)
    return [unit // divisor for unit in units], math.floor(most / divisor)
