"""Construction of networks from genotypes of any kind."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from nni_darts._lazy import imported
from nni_darts.genotypes import AnyGenotype

__all__ = ['network_from_genotype']


def network_from_genotype(
    genotype: AnyGenotype, channels: int | None = None, cells: int | None = None, num_classes: int | None = None, **options: Any
) -> nn.Module:
    """Builds the network of a genotype, with newly initialised weights.

    The network maps images (B, in_channels, H, W) to logits (B, num_classes); the network of a recurrent cell is a language model.

    Args:
        genotype: a pair of cells (NASNet, AmoebaNet and DARTS), a cell of NAS-Bench-201, a recurrent cell, a known network, or a sample of
            a user's own space.
        channels: number of channels; None is the published number (36; NAS-Bench-201: 16). A known network ignores it.
        cells: number of cells; None is the published number (20; NAS-Bench-201: 15). A known network ignores it.
        num_classes: number of classes; None is 10.
        options: ``in_channels``, ``affine``, and for a pair of cells ``stem``, ``auxiliary``, ``drop_path`` and ``pool_batch_norm``, as for
            :class:`~nni_darts.search_spaces.cnn.Network`. A known network ignores the options of cells. A recurrent cell has only
            the options ``vocabulary``, ``embedding``, ``hidden``, ``dropouts`` and ``batch_norm``, as for
            :func:`~nni_darts.search_spaces.recurrent.recurrent_network`. A sample has the options ``path`` and ``settings``, as for
            :func:`~nni_darts.search_spaces.own.own_network`.

    Raises:
        ValueError: for impossible sizes, or an option that this kind of network does not have.
    """
    build = imported(genotype.network)
    sizes = {name: value for name, value in (('channels', channels), ('cells', cells), ('num_classes', num_classes)) if value is not None}
    parameters = inspect.signature(build).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in (*sizes, *options):
            if name not in parameters:
                raise ValueError(f'a network of a {genotype.kind} cell has no {name}; it has {", ".join(list(parameters)[1:])}')
    return build(genotype, **sizes, **options)
