"""The network to train, whatever kind of cell it is made of."""

from __future__ import annotations

from typing import Any

from torch import nn

from nni_darts.genotypes import AnyGenotype
from nni_darts.known import KnownNetwork
from nni_darts.nasbench201 import NasBench201Genotype
from nni_darts.recurrent import RnnGenotype
from nni_darts.search_spaces.cnn import darts_network
from nni_darts.search_spaces.known import known_network
from nni_darts.search_spaces.nasbench201 import nasbench201_network
from nni_darts.search_spaces.recurrent import recurrent_network

__all__ = ['network_from_genotype']

_NOT_IN_NAS_BENCH_201 = {'stem': 'cifar', 'auxiliary': False, 'drop_path': 0.0}
"""Settings that the networks of NAS-Bench-201 do not support, with the only value that each may have there."""


def network_from_genotype(
    genotype: AnyGenotype, channels: int | None = None, cells: int | None = None, num_classes: int = 10, **options: Any
) -> nn.Module:
    """The network to train: (B, in_channels, H, W) → logits (B, num_classes); of a recurrent cell one that reads text.

    Args:
        genotype: a pair of cells (NASNet, AmoebaNet and DARTS), a cell of NAS-Bench-201, a recurrent cell, or a known network.
        channels, cells: size; None is the published one (36 and 20; NAS-Bench-201: 16 and 15). A known network has a size of its own, and
            ignores these and the options that concern cells.
        num_classes: number of classes.
        options: ``in_channels``, ``affine``, and for a pair of cells ``stem``, ``auxiliary``, ``drop_path``, ``pool_batch_norm``, as for
            :func:`~nni_darts.search_spaces.cnn.darts_network`. A recurrent cell has none of all these but ``vocabulary``, ``embedding``,
            ``hidden``, ``dropouts`` and ``batch_norm``, as for :func:`~nni_darts.search_spaces.recurrent.recurrent_network`.

    Raises:
        ValueError: for sizes that make no network, or an option that this kind of network does not have.
    """
    sizes: dict[str, Any] = {name: value for name, value in (('channels', channels), ('cells', cells)) if value is not None}
    if isinstance(genotype, RnnGenotype):
        if sizes:
            raise ValueError(f'a network of a recurrent cell has embedding and hidden units, no {" and ".join(sizes)}')
        return recurrent_network(genotype, **options)
    if isinstance(genotype, KnownNetwork):
        return known_network(genotype, num_classes, **{name: options[name] for name in ('in_channels', 'stem') if name in options})
    if not isinstance(genotype, NasBench201Genotype):
        return darts_network(genotype, num_classes=num_classes, **sizes, **options)
    for name, only in _NOT_IN_NAS_BENCH_201.items():
        if options.pop(name, only) != only:
            raise ValueError(f'networks of NAS-Bench-201 have no other {name} than {only!r}')
    options.pop('pool_batch_norm', None)  # their pools never have one
    return nasbench201_network(genotype, num_classes=num_classes, **sizes, **options)
