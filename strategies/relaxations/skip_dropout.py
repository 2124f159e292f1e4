"""P-DARTS: dropout after skip connections (Chen et al., ICCV 2019, section 3.3.2)."""

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
    """The softmax with dropout after ``skip_connect`` in training, at a rate that decays.

    Skip connections have no weights to train and speed up learning, so α would favour them early in the search. As in the authors' code,
    the rate decays linearly while α is fixed, and then starts again from ``rate``. With 25 epochs of which α is fixed in the first 10, the
    rate in epoch e is ``rate · (24 − e) / 25``, and then ``rate · exp(−0.2 · (e − 10))``. Other lengths are scaled to this one.

    Args:
        rate: initial rate; 0 turns dropout off.
        behind: ``identity`` applies dropout only after skip connections that are an ``nn.Identity`` (stride 1), as in the authors' code;
            ``all`` also applies it after skip connections of stride 2 (factorized reductions), as in the paper.

    Raises:
        ValueError: for a rate outside [0, 1).
    """

    def __init__(self, rate: float, behind: Literal['identity', 'all'] = 'identity') -> None:
        self.rate = rate
        self.behind = behind
        self.current = rate

    def candidate(self, module: nn.Module, name: str) -> nn.Module:
        """Returns a skip connection followed by dropout.

        All skip connections are wrapped, even those without dropout, so that names in a checkpoint do not depend on the setting.
        """
        return _Dropped(module, self) if name == _SKIP and self.rate else module

    def begin_step(self, progress: float) -> None:
        """Sets the rate for a step."""
        epoch = min(max(progress, 0.0), 1.0) * (_PUBLISHED_EPOCHS - 1)
        if epoch < _PUBLISHED_WARMUP:
            self.current = self.rate * (_PUBLISHED_EPOCHS - 1 - epoch) / _PUBLISHED_EPOCHS
        else:
            self.current = self.rate * math.exp(-_FALL * (epoch - _PUBLISHED_WARMUP))


class _Dropped(nn.Module):
    """A skip connection followed by dropout, if the relaxation drops this kind."""

    def __init__(self, skip: nn.Module, relaxation: SkipDropout) -> None:
        super().__init__()
        self.skip = skip
        self._relaxation = relaxation

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output of the skip connection, with dropout."""
        output = self.skip(x)
        if self._relaxation.behind == 'identity' and not isinstance(self.skip, nn.Identity):
            return output
        return functional.dropout(output, self._relaxation.current, self.training)
