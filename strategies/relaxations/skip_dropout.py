"""P-DARTS: dropout behind skip connections (Chen et al., ICCV 2019, section 3.3.2)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.catalogue import SkipDropoutSettings
from nni_darts.strategies.relaxations.base import Relaxation
from nni_darts.strategies.settings import typed

__all__ = ['SkipDropout']

_SKIP = 'skip_connect'
_PUBLISHED_EPOCHS, _PUBLISHED_WARMUP, _FALL = 25, 10, 0.2


@typed(settings=SkipDropoutSettings)
class SkipDropout(Relaxation):
    """The softmax; while training, a part of the numbers that come out of a ``skip_connect`` is dropped, less and less.

    Skip connections learn nothing and make learning fast, so that α would favour them early on. As in the authors' code the rate falls
    linearly while α rests, and starts again from ``rate`` then: at epoch e of 25, the first 10 of which α rests, it is
    ``rate · (24 − e) / 25`` and then ``rate · exp(−0.2 · (e − 10))``. In a shorter or longer search the same parts of it count.

    Args:
        rate: what it starts from; 0 leaves everything as it is.
        behind: ``identity`` drops only behind skip connections that are an ``nn.Identity``, those of stride 1, as the authors' code does;
            ``all`` behind those of stride 2 (factorized reductions), too, as the paper says.

    Raises:
        ValueError: for a rate outside [0, 1).
    """

    def __init__(self, rate: float, behind: Literal['identity', 'all'] = 'identity') -> None:
        self.rate = rate
        self.behind = behind
        self.current = rate

    def candidate(self, module: nn.Module, name: str) -> nn.Module:
        """A skip connection with dropout behind it.

        One that is not to be dropped is wrapped all the same, so that names in a checkpoint do not depend on the setting.
        """
        return _Dropped(module, self) if name == _SKIP and self.rate else module

    def begin_step(self, progress: float) -> None:
        """Sets the rate."""
        epoch = min(max(progress, 0.0), 1.0) * (_PUBLISHED_EPOCHS - 1)
        if epoch < _PUBLISHED_WARMUP:
            self.current = self.rate * (_PUBLISHED_EPOCHS - 1 - epoch) / _PUBLISHED_EPOCHS
        else:
            self.current = self.rate * math.exp(-_FALL * (epoch - _PUBLISHED_WARMUP))


class _Dropped(nn.Module):
    """A skip connection with dropout behind it, where it is of the kind that the relaxation drops."""

    def __init__(self, skip: nn.Module, relaxation: SkipDropout) -> None:
        super().__init__()
        self.skip = skip
        self._relaxation = relaxation

    def forward(self, x: Tensor) -> Tensor:
        """As the skip connection's."""
        output = self.skip(x)
        if self._relaxation.behind == 'identity' and not isinstance(self.skip, nn.Identity):
            return output
        return functional.dropout(output, self._relaxation.current, self.training)
