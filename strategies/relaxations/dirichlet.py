"""DrNAS: the weights of candidates are drawn from Dirichlet distributions (Chen et al., ICLR 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.distributions import Dirichlet
from torch.nn import functional

from nni_darts import parallel
from nni_darts.strategies.catalogue import DirichletSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['DirichletWeights']


@typed(settings=DirichletSettings)
class DirichletWeights(Relaxation):
    """``w ~ Dir(elu(α) + 1)``, drawn anew in every forward pass, with the pathwise derivative (section 3.1).

    All cells of a kind share the draw of a pass. Evaluations draw, too, as in the authors' code. A selection ranks by softmax(α), as there,
    or by the mean of the distribution, which may rank the edges of a node differently; the strongest operation of an edge is the same.
    Where a candidate is left out or operations are decided, the others keep their drawn weights; divided by their sum they are again a
    draw from the Dirichlet distribution of their concentrations.

    Args:
        rank_by: ``softmax`` or ``mean``.
    """

    differentiable_twice = False

    def __init__(self, rank_by: Literal['softmax', 'mean'] = 'softmax') -> None:
        self.rank_by = rank_by
        self._architecture: Architecture | None = None
        self._drawn: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_drawn': {}}  # a draw of the original cannot be copied, because it has a history

    def begin(self, architecture: Architecture) -> None:
        """See :class:`Relaxation`."""
        self._architecture = architecture

    def begin_forward(self) -> None:
        """Draws the weights of all choices; choices with equally many candidates are drawn together.

        All draws come first, because operations that draw noise draw amounts that depend on the size of a rank's part of the batch.
        """
        assert self._architecture is not None  # a pass comes after begin
        parallel.share_random_state()
        sizes: dict[int, list[str]] = {}
        for label, decision in self._architecture.operations().items():
            if label not in self._architecture.state.fixed:
                sizes.setdefault(len(decision.names), []).append(label)
        self._drawn = {}
        for labels in sizes.values():
            concentrations = torch.stack([concentration(self._architecture.alpha(label)) for label in labels])
            self._drawn |= zip(labels, Dirichlet(concentrations, validate_args=False).rsample().unbind())

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """Returns the draw of this pass; the mean outside of a pass."""
        return self._drawn[label] if label in self._drawn else _mean(alpha)

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Returns softmax(α) or the mean of the distribution, as ``rank_by`` says."""
        return torch.softmax(alpha, dim=-1) if self.rank_by == 'softmax' else _mean(alpha)


def concentration(alpha: Tensor) -> Tensor:
    """Returns β = elu(α) + 1, positive, which is 1 at α = 0: the uniform distribution on the simplex."""
    return (functional.elu(alpha) + 1).clamp(min=torch.finfo(alpha.dtype).tiny)


def _mean(alpha: Tensor) -> Tensor:
    beta = concentration(alpha)
    return beta / beta.sum(dim=-1, keepdim=True)
