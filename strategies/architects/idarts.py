"""iDARTS: the implicit gradient, once for several steps of the weights (Zhang et al., ICML 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nni_darts.strategies.architects.architect import Architect
from nni_darts.strategies.catalogue import ImplicitSettings
from nni_darts.strategies.settings import typed

__all__ = ['Implicit']


@typed(settings=ImplicitSettings)
@dataclass(frozen=True)
class Implicit(Architect):
    """The implicit gradient of iDARTS (Zhang et al., ICML 2021): :func:`.implicit_gradient`, once for several steps of the weights.

    In the authors' code, a step of α also moves the weights a little, because their perturbation is undone with another vector. Here it
    moves α alone.

    Args:
        terms: number K of terms of the Neumann series after the first one.
        weight_steps: number of steps of the weights for each step of α.
    """

    terms: int = 2
    weight_steps: int = 4

    @property
    def passes(self) -> float:  # type: ignore[override]
        """The cost of a step of α: two gradients, a Hessian-vector product for each term, and one for α."""
        return self.terms + 3

    def options(self) -> dict[str, Any]:
        """See :class:`Architect`."""
        return {'order': 2, 'terms': self.terms}
