"""Exponentiated gradient descent on the simplex (Li, Khodak et al., ICLR 2021, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ['LEAST', 'ExponentiatedGradient']

LEAST = 1e-5
"""The smallest probability, from which a candidate can still recover."""


class ExponentiatedGradient(Optimizer):
    """``θ ← θ · exp(−η·g) / Σ``, mirror descent with the entropy, for parameters that are points on a simplex.

    The result equals softmax(ln θ − η·g), so adding a constant to g changes nothing. Entries are kept at :data:`LEAST` at least, as in the
    authors' code, but θ is normalised both before and after that; the code normalises only after it in one method, and leaves the
    simplex in another. There is neither momentum nor weight decay, so there is nothing to restore but θ.

    Args:
        params: parameters (candidates,), each with positive entries that add up to 1.
        lr: η, the learning rate.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 0.1) -> None:
        super().__init__(params, {'lr': lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step; returns the value of the closure, if there is one."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for theta in group['params']:
                if theta.grad is not None:
                    moved = torch.softmax(theta.log() - group['lr'] * theta.grad, dim=-1).clamp(min=LEAST)
                    theta.copy_(moved / moved.sum(dim=-1, keepdim=True))
        return loss
