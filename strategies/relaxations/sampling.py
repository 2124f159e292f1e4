"""Draws that last for one step: the basis of relaxations that sample instead of mixing all candidates evenly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nni_darts.strategies.reference import Reference
from nni_darts.strategies.relaxations.base import Relaxation

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['Sampling', 'one_hot', 'with_gradient']


class Sampling(Relaxation):
    """Base class of relaxations that draw for each label, once for a step of α and once for a step of the weights.

    All cells that share an α share its draw, and so do all passes of a step, such as those of second-order DARTS. Between steps, which
    includes validation, scoring and the measurement of curvature, there is no draw, and candidates are weighted by :meth:`probabilities`.

    Draws are made before the first pass of a step, because candidates that draw noise draw amounts that depend on the rank's part of the
    batch.
    """

    def __init__(self) -> None:
        self._architecture: Reference[Architecture] | None = None
        self._drawn: dict[str, Any] = {}

    def begin(self, architecture: Architecture) -> None:
        """Prepares to draw for the labels of an architecture."""
        self._architecture, self._drawn = Reference(architecture), {}

    def draw(self, alpha: Tensor) -> Any:
        """Returns a draw for α (candidates,), which needs no gradient."""
        raise NotImplementedError

    def drawn(self, label: str) -> Any:
        """Returns the draw of this step for a label; None between steps."""
        return self._drawn.get(label)

    def begin_step(self, progress: float) -> None:
        """Draws for a step of α."""
        self._draw_all()

    @contextmanager
    def weight_step(self, architecture: Architecture, loss: Callable[[], Tensor], model: nn.Module, progress: float) -> Iterator[None]:
        """Draws for a step of the weights, after which there is no draw."""
        self._draw_all()
        try:
            yield
        finally:
            self._drawn = {}

    @torch.no_grad()
    def _draw_all(self) -> None:
        if self._architecture is not None:
            architecture = self._architecture.value
            self._drawn = {label: self.draw(architecture.alpha(label).detach()) for label in architecture.operations()}


def one_hot(like: Tensor, index: Tensor | int) -> Tensor:
    """Returns zeros in the shape (candidates,) of a tensor, with a one at an index, which may be a tensor of one number."""
    return torch.zeros_like(like).index_fill(0, torch.as_tensor(index, device=like.device).view(1), 1.0)


def with_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """Returns a value, bit for bit, with the gradient of a surrogate of the same shape."""
    return value + (surrogate - surrogate.detach())
