"""How α moves: named combinations of the options of :func:`architecture_gradient`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from torch.optim import Optimizer

from nni_darts.strategies.architects.gradient import architecture_gradient, check_options

__all__ = ['Architect', 'FirstOrder', 'SecondOrder']


class Architect(Protocol):
    """Computes the gradient that α's optimizer then follows."""

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
        ...


@dataclass(frozen=True)
class FirstOrder:
    """``∇α L_v(w, α)``: DARTS with ξ = 0."""

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
        """See :class:`Architect`."""
        return architecture_gradient(
            train_loss, valid_loss, weights, alphas, optimizer, buffers=buffers, learning_rate=learning_rate, order=1
        )


@dataclass(frozen=True)
class SecondOrder:
    """The gradient through one virtual step of the weights. Options as for :func:`architecture_gradient`."""

    hessian: Literal['finite_difference', 'exact'] = 'finite_difference'
    epsilon: float = 0.01
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_options(self.hessian, self.epsilon, self.clip_norm)

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
        """See :class:`Architect`."""
        return architecture_gradient(
            train_loss,
            valid_loss,
            weights,
            alphas,
            optimizer,
            buffers=buffers,
            learning_rate=learning_rate,
            hessian=self.hessian,
            epsilon=self.epsilon,
            clip_norm=self.clip_norm,
        )
