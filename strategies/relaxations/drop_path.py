"""RobustDARTS: drop-path on the edges of the supernet (Zela et al., ICLR 2020, section 5.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nni_darts.strategies.catalogue import DropPathSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.settings import typed

__all__ = ['DropPath']


@typed(settings=DropPathSettings)
class DropPath(Relaxation):
    """The softmax, whose mixed output is dropped on each edge for some samples while gradients are computed.

    In epoch e (from 0) of E, the probability is ``drop_path · e / (E − 1)``; what is kept is divided by the probability of keeping it.

    Args:
        drop_path: probability in the last epoch; with 0, nothing is drawn, and cells are computed fast.
    """

    def __init__(self, drop_path: float = 0.0) -> None:
        self.rate = drop_path
        self.current = 0.0

    @property
    def mixes_by_weights(self) -> bool:
        """See :class:`Relaxation`: only without drop-path."""
        return self.rate == 0 and type(self).mix is Relaxation.mix

    def begin_step(self, progress: float) -> None:
        """Sets the probability for a step."""
        self.current = self.rate * min(max(progress, 0.0), 1.0)

    def around(self, compute: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        """Returns the mixed output, 0 for the samples that are dropped."""
        output = compute(*args, **kwargs)
        if not self.current or not torch.is_grad_enabled() or not output.dim():
            return output
        kept = torch.empty(len(output), *[1] * (output.dim() - 1), dtype=output.dtype, device=output.device).bernoulli_(1 - self.current)
        return output * kept / (1 - self.current)
