"""The base class of terms, each of which adds to the loss that α minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture
    from nni_darts.strategies.moment import Moment
    from nni_darts.strategies.relaxations import Relaxation

__all__ = ['Term']


class Term:
    """Adds to the loss of α, in any strategy that trains α by gradients.

    A subclass computes :meth:`value`, which depends on α and the epoch, not on data. Every architect differentiates it: it is a part of
    L_v, also at the virtual step's weights.

    Example:
        >>> class Shrinkage(Term):
        ...     def value(self, architecture, relaxation, moment):
        ...         return sum(alpha.square().sum() for alpha in architecture.arch_parameters())
    """

    def value(self, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """Returns the term, a scalar.

        Args:
            architecture: α and the decisions so far.
            relaxation: gives the probabilities of candidates.
            moment: the epoch, and the number of epochs of the search.
        """
        raise NotImplementedError

    def on_loss(self, loss: Tensor, architecture: Architecture, relaxation: Relaxation, moment: Moment) -> Tensor:
        """Returns a scalar loss with the term. Arguments as for :meth:`value`."""
        return loss + self.value(architecture, relaxation, moment).to(loss)
