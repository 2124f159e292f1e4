"""SmoothDARTS: the weights are trained under a perturbed architecture (Chen & Hsieh, ICML 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.strategies.catalogue import AdversarialSettings, PerturbedSettings
from nni_darts.strategies.costs import EVALUATION
from nni_darts.strategies.relaxations.base import Relaxation, onto_simplex
from nni_darts.strategies.settings import typed

if TYPE_CHECKING:
    from nni_darts.strategies.architecture import Architecture

__all__ = ['AdversarialSoftmax', 'RandomSoftmax']


@typed(settings=PerturbedSettings)
class RandomSoftmax(Relaxation):
    """SDARTS-RS: uses ``softmax(α) + δ`` with δ ~ U(−ε, ε), projected onto the simplex, in steps of the weights.

    Args:
        first, last: ε is ``first + (last − first)·e / E`` in epoch e of a search of E epochs, and ``last`` while a selection fine-tunes.
    """

    def __init__(self, first: float = 0.03, last: float = 0.3) -> None:
        self.first = first
        self.last = last
        self._perturbed: dict[str, Tensor] = {}

    def weights(self, label: str, alpha: Tensor) -> Tensor:
        """Returns the softmax, or its perturbation in a step of the weights."""
        return self._perturbed[label] if label in self._perturbed else self.probabilities(alpha)

    @contextmanager
    def weight_step(self, architecture: Architecture, loss: Callable[[], Tensor], model: nn.Module, progress: float) -> Iterator[None]:
        """Perturbs every choice among operations, without changing α."""
        radius = self.first + (self.last - self.first) * min(max(progress, 0.0), 1.0)
        centres = {label: self.probabilities(architecture.alpha(label).detach()) for label in architecture.operations()}
        try:
            self._perturb(centres, radius, loss, model)
            yield
        finally:
            self._perturbed = {}

    def _perturb(self, centres: dict[str, Tensor], radius: float, loss: Callable[[], Tensor], model: nn.Module) -> None:
        self._perturbed = _randomly_moved(centres, radius)


def _randomly_moved(centres: dict[str, Tensor], radius: float) -> dict[str, Tensor]:
    return {label: onto_simplex(p + torch.empty_like(p).uniform_(-radius, radius)) for label, p in centres.items()}


@typed(settings=AdversarialSettings)
class AdversarialSoftmax(RandomSoftmax):
    """SDARTS-ADV: uses the δ within ±ε that raises the training loss, found by projected gradient ascent in evaluation mode.

    If δ does not raise the loss, the step is not perturbed.

    Args:
        first, last: see :class:`RandomSoftmax`.
        steps: number of steps of the ascent, each of length 2·ε / steps.
        random_start: whether the ascent starts at a random point within ±ε, as in the authors' code, rather than at softmax(α).
    """

    def __init__(self, first: float = 0.03, last: float = 0.3, steps: int = 7, random_start: bool = True) -> None:
        super().__init__(first, last)
        self.steps = steps
        self.random_start = random_start
        self.passes = 1 + steps + 2 * EVALUATION
        self.kept = 0
        self.tried = 0

    def _perturb(self, centres: dict[str, Tensor], radius: float, loss: Callable[[], Tensor], model: nn.Module) -> None:
        modes = [(module, module.training) for module in model.modules()]
        flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        # Drawn before the first pass, because candidates that draw noise draw amounts that depend on the rank's part of the batch.
        current = _randomly_moved(centres, radius) if self.random_start else dict(centres)
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        try:
            with torch.no_grad():
                self._perturbed = centres
                plain = _mean(loss)
            # Twice the radius in total, which is enough to reach the border from any point inside.
            reach = 2.0 * radius / self.steps
            for _ in range(self.steps):
                leaves = {label: value.detach().requires_grad_() for label, value in current.items()}
                self._perturbed = leaves
                current_loss = loss()
                if not current_loss.requires_grad:
                    break  # the loss does not depend on any choice
                gradients = torch.autograd.grad(current_loss, list(leaves.values()), allow_unused=True)
                reached = [(label, gradient) for label, gradient in zip(leaves, gradients) if gradient is not None]
                means = parallel.average([gradient for _, gradient in reached])
                for (label, _), gradient in zip(reached, means):
                    moved = leaves[label].detach() + reach * gradient.sign()
                    inside = centres[label] + (moved - centres[label]).clamp(-radius, radius)
                    current[label] = onto_simplex(inside)
            with torch.no_grad():
                self._perturbed = current
                risen = bool(_mean(loss) > plain)
        finally:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            for module, training in modes:
                module.training = training
        self.tried += 1
        self.kept += risen
        self._perturbed = current if risen else {}


def _mean(loss: Callable[[], Tensor]) -> Tensor:
    """Returns the loss on the whole batch, of which each rank has a part."""
    return parallel.average([loss()])[0]
