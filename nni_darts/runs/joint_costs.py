"""Costs of spaces whose choices share a layer, such as widths of layers in a row, from the expressions of NNI's profilers.

A profiler of NNI adds up one expression of NNI's mutables for each layer. Each is a sum of products, and a product depends on a few choices
only, so all its values can be listed.
"""

from __future__ import annotations

import itertools
import logging
import math
import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from nni.mutable.mutable import MutableExpression, MutableSymbol
from nni.nas.profiler.pytorch.flops import FlopsParamsProfiler

from nni_darts.genotypes.costs import CostTable, JointCosts
from nni_darts.genotypes.neighbours import Choices

__all__ = ['profiled_table']

_MOST_COMBINATIONS = 20_000
"""Largest number of combinations of candidates in one product; more would take minutes and gigabytes."""

_BASES = 4
"""Number of random samples beside which the candidates of a choice are tried."""


def profiled_table(space: Any, choices: Choices, shape: Sequence[int]) -> CostTable:
    """Returns the table of costs of a space, computed from the expressions of NNI's profilers.

    Args:
        space: NNI's ``ModelSpace``.
        choices: its choices.
        shape: shape of its input, (1, C, H, W).

    Raises:
        ValueError: if NNI cannot profile the space, or a layer depends on too many choices.
    """
    fixed: dict[str, float] = {}
    parts: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for measure, expression in _profiled(space, shape).items():
        found = _listed(expression, choices)
        fixed[measure] = found.pop((), [0.0])[0]
        for labels, listed in found.items():
            parts.setdefault(labels, {})[measure] = listed
    candidates: dict[str, dict[Any, dict[str, float]]] = {}
    joint = []
    for labels, of in parts.items():
        values = {label: choices.operations[label] for label in labels}
        amounts: dict[str, Sequence[float]] = {measure: of.get(measure, [0.0] * math.prod(map(len, values.values()))) for measure in fixed}
        if len(labels) > 1:
            joint.append(JointCosts(values, amounts))
            continue
        (label,) = labels
        candidates[label] = {value: {measure: amounts[measure][index] for measure in fixed} for index, value in enumerate(values[label])}
    return CostTable(fixed, candidates, joint)


def _profiled(space: Any, shape: Sequence[int]) -> dict[str, Any]:
    """Returns measure → expression of the cost."""
    space.eval()  # batch norms in training mode refuse a single value per channel
    try:
        with _quiet(), torch.no_grad():
            # Parameters of batch norms count, their multiply-adds do not.
            with_norms, without = (
                FlopsParamsProfiler(space, torch.zeros(*shape), count_bias=False, count_normalization=norms, count_activation=False)
                for norms in (True, False)
            )
    except Exception as error:  # NNI raises many kinds of errors for what it cannot profile
        raise ValueError(f'NNI cannot profile this space ({type(error).__name__}: {error})') from None
    return {'parameters': with_norms.flops_result.params, 'multiply_adds': without.flops_result.flops}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences NNI's warnings about layers without a formula, since the costs are compared with counted networks afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _listed(expression: Any, choices: Choices) -> dict[tuple[str, ...], list[float]]:
    """Returns labels → amounts of all combinations of their candidates; the sum over all labels is the expression.

    A set of labels that is part of another one is added to it.
    """
    terms: dict[tuple[str, ...], list[_Term]] = {}
    known: dict[int, _Factor] = {}
    for number, parts in _terms(expression):
        factors = [known.setdefault(id(part), known.get(id(part)) or _Factor(part, choices)) for part in parts]
        terms.setdefault(tuple(sorted({label for factor in factors for label in factor.labels})), []).append((number, factors))
    for labels in sorted(terms, key=len):
        larger = next((others for others in terms if labels and set(labels) < set(others)), None)
        if larger is not None:
            terms[larger] += terms.pop(labels)
    return {labels: _amounts(of, labels, choices) for labels, of in terms.items()}


def _terms(expression: Any) -> Iterator[tuple[float, tuple[Any, ...]]]:
    """Yields terms whose sum is an expression: a number, and expressions to multiply with it."""
    function = expression.function if isinstance(expression, MutableExpression) and not isinstance(expression, MutableSymbol) else None
    if not isinstance(expression, MutableExpression):
        yield float(expression), ()
    elif function is operator.add:
        for part in expression.arguments:
            yield from _terms(part)
    elif function is operator.sub:
        yield from _terms(expression.arguments[0])
        yield from ((-number, factors) for number, factors in _terms(expression.arguments[1]))
    elif function is operator.mul:
        one, other = (list(_terms(part)) for part in expression.arguments)
        yield from ((number * by, factors + others) for (number, factors), (by, others) in itertools.product(one, other))
    else:
        yield 1.0, (expression,)


class _Factor:
    """An expression and the choices that change its value.

    An expression may name others: the height of a feature map is computed from all kernel sizes before it, and depends on none of them
    where the padding makes up for it. They are recognised by trying their candidates beside random ones of the other choices.
    """

    def __init__(self, expression: Any, choices: Choices) -> None:
        named = sorted({symbol.label for symbol in expression.leaf_symbols()})
        for label in named:
            if label not in choices.operations:
                raise ValueError(f'the cost of a layer depends on the choice of inputs {label!r}')
        self._expression, self._choices = expression, choices
        self._default = {label: choices.operations[label][0] for label in named}
        self.labels = [label for label in named if len(named) == 1 or self._depends_on(label)]

    @cached_property
    def values(self) -> np.ndarray[Any, Any]:
        """The value for each combination of candidates, with an axis for each label."""
        candidates = [self._choices.operations[label] for label in self.labels]
        values = [self._value(dict(zip(self.labels, combination))) for combination in itertools.product(*candidates)]
        return np.array(values).reshape([len(of) for of in candidates])

    def _depends_on(self, label: str) -> bool:
        rng, candidates = random.Random(0), self._choices.operations
        bases = [{name: rng.choice(candidates[name]) for name in self._default} for _ in range(_BASES)]
        return any(len({self._value({**base, label: value}) for value in candidates[label]}) > 1 for base in bases)

    def _value(self, sample: Mapping[str, Any]) -> float:
        return float(self._expression.evaluate({**self._default, **sample}))


_Term = tuple[float, Sequence[_Factor]]


def _amounts(terms: Sequence[_Term], labels: Sequence[str], choices: Choices) -> list[float]:
    """Returns the sum of terms for each combination of the candidates of these choices."""
    shape = [len(choices.operations[label]) for label in labels]
    if math.prod(shape) > _MOST_COMBINATIONS:
        raise ValueError(f'the cost of a layer depends on choices with {math.prod(shape):,} combinations: {", ".join(labels)}')
    amounts = np.zeros(shape)
    for number, factors in terms:
        product = np.array(number)
        for factor in factors:  # the labels of a factor are in the order of all labels
            axes = [size if label in factor.labels else 1 for label, size in zip(labels, shape)]
            product = product * factor.values.reshape(axes)
        amounts += product
    return amounts.reshape(-1).tolist()
