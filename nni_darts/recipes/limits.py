"""Limits on the cost of the network to retrain, and how amounts are written. Imports no torch."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from nni_darts.genotypes.space import Section

__all__ = ['LimitSettings', 'PenaltySettings', 'PenaltyTerm', 'parse_amount']

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


Amount = Annotated[int, BeforeValidator(parse_amount), Field(ge=1)]


class LimitSettings(Section):
    """The largest cost that the network to retrain may have, without its auxiliary head, counted as ``nni-darts cost`` counts.

    Every strategy finds a cell within all limits. A value is a number, or a number with ``k``, ``M`` or ``G``, such as ``800k``.

    Attributes:
        parameters: number of trainable parameters.
        multiply_adds: number of multiply-adds for one image.
    """

    parameters: Amount | None = None
    multiply_adds: Amount | None = None

    @model_validator(mode='after')
    def _something(self) -> LimitSettings:
        if not self.amounts():
            raise ValueError(f'limits needs a value for {" or ".join(type(self).model_fields)}')
        return self

    def amounts(self) -> dict[str, float]:
        """Returns measure → largest amount, for the measures that have a limit."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class PenaltyTerm(Section):
    """A penalty on one expected cost, as NNI's ``ExpectationProfilerPenalty`` defines it.

    With ``r = f(cost / target − 1)``, the loss of α becomes ``loss + weight · r`` (``aggregate: add``) or ``loss · (1 + r)^weight``
    (``mul``). ``nonlinear`` is f: ``linear``, ``positive`` (only costs above the target count), ``negative`` or ``absolute``.
    """

    target: Amount
    weight: Annotated[float, Field(gt=0, lt=1_000_000)]
    nonlinear: Literal['linear', 'positive', 'negative', 'absolute'] = 'linear'
    aggregate: Literal['add', 'mul'] = 'add'


class PenaltySettings(Section):
    """Penalties on the expected cost of the network to retrain, in the loss that α minimises."""

    parameters: PenaltyTerm | None = None
    multiply_adds: PenaltyTerm | None = None

    @model_validator(mode='after')
    def _something(self) -> PenaltySettings:
        if not self.terms():
            raise ValueError(f'penalty needs a value for {" or ".join(type(self).model_fields)}')
        return self

    def terms(self) -> dict[str, PenaltyTerm]:
        """Returns measure → penalty, for the measures that have one."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
