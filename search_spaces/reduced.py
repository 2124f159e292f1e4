"""The reduced spaces on which DARTS fails: S1 to S4 (Zela et al., ICLR 2020), and S5, DARTS without ``none`` (Wang et al., ICLR 2021)."""

from __future__ import annotations

from nni_darts.genotypes.candidates import REDUCED
from nni_darts.search_spaces.cnn import DartsSpace, Stem

__all__ = ['S1', 'S2', 'S3', 'S4', 'S5']


class _Reduced(DartsSpace):
    """A :class:`DartsSpace` of four nodes with fixed operations. All other arguments are those of :class:`DartsSpace`."""

    name: str

    def __init__(self, channels: int = 16, cells: int = 8, num_classes: int = 10, in_channels: int = 3, stem: Stem = 'cifar') -> None:
        super().__init__(channels, cells, num_classes, in_channels, 4, stem, REDUCED[self.name])


class S1(_Reduced):
    """Two operations on each edge, the two that were strongest there in a DARTS search."""

    name = 's1'


class S2(_Reduced):
    """``skip_connect`` and ``sep_conv_3x3`` on every edge."""

    name = 's2'


class S3(_Reduced):
    """``none``, ``skip_connect`` and ``sep_conv_3x3`` on every edge."""

    name = 's3'


class S4(_Reduced):
    """``noise`` and ``sep_conv_3x3`` on every edge."""

    name = 's4'


class S5(_Reduced):
    """The DARTS space without ``none``."""

    name = 's5'
