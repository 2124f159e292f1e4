"""The network to train, whatever kind of genotype it is made of."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import nn

from nni_darts.genotypes import AnyGenotype

__all__ = ['network_from_genotype']


def network_from_genotype(
    genotype: AnyGenotype, channels: int | None = None, cells: int | None = None, num_classes: int | None = None, **options: Any
) -> nn.Module:
    """The network to train: (B, in_channels, H, W) → logits (B, num_classes); of a recurrent cell one that reads text.

    Args:
        genotype: a pair of cells (NASNet, AmoebaNet and DARTS), a cell of NAS-Bench-201, a recurrent cell, a known network, or a sample of
            a space of the user's.
        channels, cells: size; None is the published one (36 and 20; NAS-Bench-201: 16 and 15). A known network has a size of its own, and
            ignores these and the options that concern cells.
        num_classes: number of classes; None is 10.
        options: ``in_channels``, ``affine``, and for a pair of cells ``stem``, ``auxiliary``, ``drop_path``, ``pool_batch_norm``, as for
            :class:`~nni_darts.search_spaces.cnn.Network`. A recurrent cell has none of all these but ``vocabulary``, ``embedding``,
            ``hidden``, ``dropouts`` and ``batch_norm``, as for :func:`~nni_darts.search_spaces.recurrent.recurrent_network`; a sample has
            ``path`` and ``settings``, as for :func:`~nni_darts.search_spaces.own.own_network`.

    Raises:
        ValueError: for sizes that make no network, or an option that this kind of network does not have.
    """
    module, _, name = genotype.network.partition(':')
    build = getattr(importlib.import_module(module), name)
    sizes = {name: value for name, value in (('channels', channels), ('cells', cells), ('num_classes', num_classes)) if value is not None}
    parameters = inspect.signature(build).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in (*sizes, *options):
            if name not in parameters:
                raise ValueError(f'a network of a {genotype.kind} cell has no {name}; it has {", ".join(list(parameters)[1:])}')
    return build(genotype, **sizes, **options)
