"""How α moves: named combinations of the options of :func:`architecture_gradient`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from nni_darts.strategies.architects.gradient import architecture_gradient, check_options

__all__ = ['Architect', 'FirstOrder', 'SecondOrder']


class Architect:
    """Computes the gradient that α's optimizer then follows.

    Attributes:
        passes: how often a batch goes forward and backward through the supernet for it.
    """

    passes = 1

    def options(self) -> dict[str, Any]:
        """Keyword arguments for :func:`architecture_gradient`."""
        raise NotImplementedError

    def gradient(
        self,
        train_loss: Callable[[], Tensor],
        valid_loss: Callable[[], Tensor],
        weights: Sequence[Tensor],
        alphas: Sequence[Tensor],
        optimizer: Optimizer,
        *,
        buffers: Sequence[Tensor],
        learning_rate: float | Sequence[float],
    ) -> list[Tensor]:
        """Arguments and result as for :func:`architecture_gradient`."""
        return architecture_gradient(
            train_loss, valid_loss, weights, alphas, optimizer, buffers=buffers, learning_rate=learning_rate, **self.options()
        )


@dataclass(frozen=True)
class FirstOrder(Architect):
    """``∇α L_v(w, α)``: DARTS with ξ = 0."""

    def options(self) -> dict[str, Any]:
        """See :class:`Architect`."""
        return {'order': 1}


@dataclass(frozen=True)
class SecondOrder(Architect):
    """The gradient through one virtual step of the weights. Options as for :func:`architecture_gradient`, checked at once."""

    hessian: Literal['finite_difference', 'exact'] = 'finite_difference'
    epsilon: float = 0.01
    clip_norm: float | None = None

    passes = 4  # the virtual step, the gradient there, and twice for the product

    def __post_init__(self) -> None:
        check_options(self.hessian, self.epsilon, self.clip_norm)

    def options(self) -> dict[str, Any]:
        """See :class:`Architect`."""
        return {'order': 2, **asdict(self)}
