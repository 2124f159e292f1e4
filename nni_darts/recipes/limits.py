"""Limits on the cost of the network to retrain, and how amounts are written. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from nni_darts.genotypes.space import Section
from nni_darts.recipes.latency import Milliseconds, milliseconds

__all__ = ['LATENCY', 'LatencyPenaltyTerm', 'LimitSettings', 'PenaltySettings', 'PenaltyTerm', 'parse_amount', 'parse_limit']

LATENCY = 'latency_ms'
"""The cost that the section ``latency`` of a recipe defines."""

_FACTORS = {'': 1, 'k': 10**3, 'K': 10**3, 'M': 10**6, 'G': 10**9}
_AMOUNT = re.compile(r'\s*(\d{1,15}(?:\.\d{1,12})?)\s*([kKMG]?)\s*')


def parse_amount(value: Any) -> int:
    """Returns a whole number from a number, or from text such as ``800k``, ``1.5M`` or ``2G``; a fraction is rounded down.

    Raises:
        ValueError: for anything else, and for less than 1.
    """
    text = '' if isinstance(value, bool) else f'{value:f}' if isinstance(value, float) else str(value)
    match = _AMOUNT.fullmatch(text.replace('_', '').replace(',', ''))
    amount = int(Decimal(match[1]) * _FACTORS[match[2]]) if match else 0
    if amount < 1:
        raise ValueError(f'must be a number from 1, or a number with k, M or G, such as 800k or 1.5M; it is {str(value)[:40]!r}')
    return amount


def parse_limit(measure: str, value: Any) -> float:
    """Returns the limit on a cost from a number or text: milliseconds of ``latency_ms``, and otherwise as :func:`parse_amount`.

    Raises:
        ValueError: for anything else.
    """
    return milliseconds(value) if measure == LATENCY else parse_amount(value)


Amount = Annotated[int, BeforeValidator(parse_amount), Field(ge=1)]


class LimitSettings(Section):
    """The largest cost that the network to retrain may have, without its auxiliary head, counted as ``nni-darts cost`` counts.

    Every strategy finds a cell within all limits. A value is a number, or a number with ``k``, ``M`` or ``G``, such as ``800k``.

    Attributes:
        parameters: number of trainable parameters.
        multiply_adds: number of multiply-adds for one image.
        latency_ms: predicted latency of one batch in milliseconds (:class:`~nni_darts.recipes.latency.LatencySettings`).
    """

    parameters: Amount | None = None
    multiply_adds: Amount | None = None
    latency_ms: Milliseconds | None = None

    @model_validator(mode='after')
    def _something(self) -> LimitSettings:
        if not self.amounts():
            raise ValueError(f'limits needs a value for {_listed(type(self).model_fields)}')
        return self

    def amounts(self) -> dict[str, float]:
        """Returns measure → largest amount, for the measures that have a limit."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


def _listed(names: Iterable[str]) -> str:
    *names, last = names
    return f'{", ".join(names)} or {last}'


class _Term(Section):
    weight: Annotated[float, Field(gt=0, lt=1_000_000)]
    nonlinear: Literal['linear', 'positive', 'negative', 'absolute'] = 'linear'
    aggregate: Literal['add', 'mul'] = 'add'


class PenaltyTerm(_Term):
    """A penalty on one expected cost, as NNI's ``ExpectationProfilerPenalty`` defines it.

    With ``r = f(cost / target − 1)``, the loss of α becomes ``loss + weight · r`` (``aggregate: add``) or ``loss · (1 + r)^weight``
    (``mul``). ``nonlinear`` is f: ``linear``, ``positive`` (only costs above the target count), ``negative`` or ``absolute``.
    """

    target: Amount


class LatencyPenaltyTerm(_Term):
    """A penalty on the expected latency, as :class:`PenaltyTerm`, with a ``target`` in milliseconds."""

    target: Milliseconds


class PenaltySettings(Section):
    """Penalties on the expected cost of the network to retrain, in the loss that α minimises."""

    parameters: PenaltyTerm | None = None
    multiply_adds: PenaltyTerm | None = None
    latency_ms: LatencyPenaltyTerm | None = None

    @model_validator(mode='after')
    def _something(self) -> PenaltySettings:
        if not self.terms():
            raise ValueError(f'penalty needs a value for {_listed(type(self).model_fields)}')
        return self

    def terms(self) -> dict[str, PenaltyTerm | LatencyPenaltyTerm]:
        """Returns measure → penalty, for the measures that have one."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
