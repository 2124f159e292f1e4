"""Published cells, as data.

NASNet-A: Zoph et al., CVPR 2018. AmoebaNet-A: Real et al., AAAI 2019. DARTS_V1 and DARTS_V2 (first and second order): Liu et al.,
ICLR 2019. All are in the format of DARTS: two ``(operation, input)`` pairs for each node.

Names of recurrent cells end in ``-RNN``: ENAS (Pham et al., ICML 2018), DARTS_V1 and DARTS_V2, with one ``(activation, input)`` pair for
each node.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nni_darts.genotypes.convolutional import Genotype
from nni_darts.genotypes.recurrent import RnnGenotype

__all__ = ['PUBLISHED']

_SHORT = {
    'sep3': 'sep_conv_3x3',
    'sep5': 'sep_conv_5x5',
    'sep7': 'sep_conv_7x7',
    'dil3': 'dil_conv_3x3',
    'dil5': 'dil_conv_5x5',
    'max': 'max_pool_3x3',
    'avg': 'avg_pool_3x3',
    'skip': 'skip_connect',
    '7x1': 'conv_7x1_1x7',
}


def _edges(text: str) -> tuple[tuple[str, int], ...]:
    words = text.split()
    return tuple((_SHORT[name], int(source)) for name, source in zip(words[::2], words[1::2]))


def _pairs(text: str) -> tuple[tuple[str, int], ...]:
    words = text.split()
    return tuple((name, int(source)) for name, source in zip(words[::2], words[1::2]))


PUBLISHED: Mapping[str, Genotype | RnnGenotype] = MappingProxyType(
    {
        'NASNet-A': Genotype(
            normal=_edges('sep5 1 sep3 0  sep5 0 sep3 0  avg 1 skip 0  avg 0 avg 0  sep3 1 skip 1'),
            normal_concat=(2, 3, 4, 5, 6),
            reduce=_edges('sep5 1 sep7 0  max 1 sep7 0  avg 1 sep5 0  skip 3 avg 2  sep3 2 max 1'),
            reduce_concat=(4, 5, 6),
        ),
        'AmoebaNet-A': Genotype(
            normal=_edges('avg 0 max 1  sep3 0 sep5 2  sep3 0 avg 3  sep3 1 skip 1  skip 0 avg 1'),
            normal_concat=(4, 5, 6),
            reduce=_edges('avg 0 sep3 1  max 0 sep7 2  sep7 0 avg 1  max 0 max 1  7x1 0 sep3 5'),
            reduce_concat=(3, 4, 6),
        ),
        'DARTS_V1': Genotype(
            normal=_edges('sep3 1 sep3 0  skip 0 sep3 1  skip 0 sep3 1  sep3 0 skip 2'),
            normal_concat=(2, 3, 4, 5),
            reduce=_edges('max 0 max 1  skip 2 max 0  max 0 skip 2  skip 2 avg 0'),
            reduce_concat=(2, 3, 4, 5),
        ),
        'DARTS_V2': Genotype(
            normal=_edges('sep3 0 sep3 1  sep3 0 sep3 1  sep3 1 skip 0  skip 0 dil3 2'),
            normal_concat=(2, 3, 4, 5),
            reduce=_edges('max 0 max 1  skip 2 max 1  max 0 skip 2  skip 2 max 1'),
            reduce_concat=(2, 3, 4, 5),
        ),
        'ENAS-RNN': RnnGenotype(
            recurrent=_pairs('tanh 0 tanh 1 relu 1 tanh 3 tanh 3 relu 3 relu 4 relu 7 relu 8 relu 8 relu 8'),
            concat=(2, 5, 6, 9, 10, 11),
        ),
        'DARTS_V1-RNN': RnnGenotype(
            recurrent=_pairs('relu 0 relu 1 tanh 2 relu 3 relu 4 identity 1 relu 5 relu 1'),
            concat=tuple(range(1, 9)),
        ),
        'DARTS_V2-RNN': RnnGenotype(
            recurrent=_pairs('sigmoid 0 relu 1 relu 1 identity 1 tanh 2 sigmoid 5 tanh 3 relu 5'),
            concat=tuple(range(1, 9)),
        ),
    }
)
"""Name → genotype."""
