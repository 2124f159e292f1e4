"""GAEA: α are probabilities, trained by exponentiated gradient descent (Li, Khodak et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nni_darts.strategies.exponentiated import ExponentiatedGradient
from nni_darts.strategies.relaxations.base import Relaxation

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['OnSimplex', 'Simplex']


class OnSimplex(Relaxation):
    """The part that all relaxations on the simplex share: the parameters θ = α start uniform and stay on the simplex.

    There is no softmax; ``weights = θ``. Where edges have weights of their own, these lie on a simplex, too, and add up to 1 for each node
    (a comment in the authors' code says 2). The optimizer takes only the learning rate from the strategy's settings. It may be mixed in
    before any relaxation that calls ``probabilities``.
    """

    on_simplex = True

    def begin(self, architecture: Architecture) -> None:
        """Makes all α uniform.

        Raises:
            ValueError: for a choice of any number of inputs, which is no point on a simplex.
        """
        for label, decision in architecture.inputs().items():
            if decision.edges is None and decision.chosen is None:
                raise ValueError(f'InputChoice {label!r} takes any number of inputs, which is no point on a simplex; give it n_chosen')
        architecture.on_simplex = True
        with torch.no_grad():
            for alpha in architecture.arch_parameters():
                alpha.fill_(1.0 / alpha.numel())

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Returns θ itself."""
        return alpha

    def optimizer(self, alphas: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> Optimizer:
        """See :class:`Relaxation`."""
        return ExponentiatedGradient(alphas, lr=settings['lr'])


class Simplex(OnSimplex):
    """GAEA DARTS: ``ō(x) = Σ_o θ_o · o(x)``."""
