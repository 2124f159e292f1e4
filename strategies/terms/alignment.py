"""Λ-DARTS: layers agree on the operations that they want (Movahedi et al., ICLR 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.strategies.architects.gradient import saved
from nni_darts.strategies.architects.randomness import RandomState
from nni_darts.strategies.settings import typed
from nni_darts.strategies.supernet import MixedOperation
from nni_darts.strategies.terms.base import Step, StepTerm
from nni_darts.strategies.terms.registry import LambdaSettings

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['Alignment', 'direction']

_REDUCTION = 'reduce'

Cells = dict[str, dict[int, Tensor]]
"""Label → place of a cell, in the order of the pass → a tensor (candidates,)."""


def direction(gradients: Tensor) -> Tensor:
    """Returns δ = ∂Λ/∂g, (L, n), for the gradients g (L, n) of L cells, where Λ is the mean cosine of all pairs of them.

    With u = g/‖g‖ and S = Σ u, δ_l is ``2 / (L(L − 1)) · (S − u_l ⟨u_l, S⟩) / ‖g_l‖`` (equation 9).
    """
    layers = len(gradients)
    norms = gradients.norm(dim=1, keepdim=True).clamp(min=torch.finfo(gradients.dtype).tiny)
    units = gradients / norms
    total = units.sum(dim=0)
    return 2 / (layers * (layers - 1)) * (total - units * (units @ total)[:, None]) / norms


@typed(settings=LambdaSettings)
class Alignment(StepTerm):
    """Minimises L_t − λ·Λ over the weights, where Λ is the mean cosine of the gradients ∂L_t/∂p that the cells of a kind send to p.

    p are the weights of the candidates, of which each cell gets its own copy. The gradient of Λ is a central difference of ∇w L_t at
    p ± ε·δ, with ε = ``epsilon`` / ‖δ‖: two passes more. λ is ``weight · e / (E − 1)`` in epoch e (from 0) of E. As in the authors' code,
    reduction cells do not count, unless there are not two other cells of a kind. Unlike there, the passes leave the running statistics of
    batch norms alone, use the random numbers of the first one, and perturb p itself, so that α is never overwritten.

    Args:
        weight: λ in the last epoch, 0.125 as published.
        epsilon: length of the difference's steps, 1e-4 as published.
    """

    passes = 2

    def __init__(self, weight: float = 0.125, epsilon: float = 1e-4) -> None:
        self.weight = weight
        self.epsilon = epsilon
        self._labels: frozenset[str] = frozenset()
        self._copies: Cells = {}
        self._random: RandomState | None = None

    def check(self, architecture: Architecture, model: nn.Module) -> None:
        """See :class:`StepTerm`. Raises ValueError if no kind of cell occurs twice."""
        counts = Counter(module.label for module in model.modules() if isinstance(module, MixedOperation))
        several = [label for label, count in counts.items() if count > 1]
        self._labels = frozenset(label for label in several if architecture.decisions[label].group != _REDUCTION) or frozenset(several)
        if not several:
            raise ValueError('lambda compares the gradients of two or more cells of a kind, and this supernet has one of each')

    def passes_in(self, epochs: int) -> float:
        """See :class:`StepTerm`: λ is 0 in the first epoch."""
        return self.passes * max(0, epochs - 1)

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:
        """Gives each cell its own copy of the weights of candidates."""
        self._copies = {}
        if step.moment.progress > 0:
            self._random = RandomState({weight.device for weight in step.weights})
            step.relaxation.probe = self._copied
        try:
            yield
        finally:
            step.relaxation.probe = None
            self._copies = {}

    def gradient(self, step: Step) -> None:
        """Adds −λ ∂Λ/∂w to the gradient."""
        layers = max((len(cells) for cells in self._copies.values()), default=0)
        if layers < 2:
            return
        copies = {label: cells for label, cells in self._copies.items() if len(cells) == layers}
        parts = [torch.stack([_gradient(copy) for copy in cells.values()]) for cells in copies.values()]
        towards = direction(parallel.average([torch.cat(parts, dim=1)])[0] / step.loss_scale)
        scale = self.epsilon / towards.norm().clamp(min=torch.finfo(towards.dtype).tiny)
        split = dict(zip(copies, (scale * towards).split([part.shape[1] for part in parts], dim=1)))
        offsets = {label: dict(zip(cells, split[label].unbind())) for label, cells in copies.items()}
        weights, sides = step.weights, []
        after = RandomState({weight.device for weight in weights})
        for sign in (-1.0, 1.0):
            assert self._random is not None  # saved before the first pass
            self._random.restore()
            step.relaxation.probe = _Moved(offsets, sign)
            with saved(list(step.model.buffers())):
                found = torch.autograd.grad(step.train_loss(), weights, allow_unused=True)
            sides.append(parallel.average([torch.zeros_like(w) if part is None else part for w, part in zip(weights, found)]))
        after.restore()
        factor = self.weight * min(step.moment.progress, 1.0) / (2 * scale)
        for weight, minus, plus in zip(weights, *sides):
            if weight.grad is not None:
                weight.grad.add_(factor * (minus - plus))

    def _copied(self, label: str, place: int, weights: Tensor) -> Tensor:
        if label not in self._labels:
            return weights
        cells = self._copies.setdefault(label, {})
        if place not in cells:
            cells[place] = weights.clone() if weights.requires_grad else weights.detach().clone().requires_grad_()
            cells[place].retain_grad()
        return cells[place]


class _Moved:
    """Adds ± the offsets to the weights of candidates, cell by cell."""

    def __init__(self, offsets: Cells, sign: float) -> None:
        self._offsets = offsets
        self._sign = sign

    def __call__(self, label: str, place: int, weights: Tensor) -> Tensor:
        offset = self._offsets.get(label, {}).get(place)
        return weights if offset is None else weights + self._sign * offset.to(weights)


def _gradient(copy: Tensor) -> Tensor:
    return torch.zeros_like(copy) if copy.grad is None else copy.grad.detach()
